"""Pictures and sound over WebRTC, to aiortc's own client in the same process."""

import asyncio
import json

import numpy as np
from aiortc import RTCPeerConnection, RTCSessionDescription

from ernerf_ti.live_server.marks import Watermark, with_note
from ernerf_ti.live_server.webrtc import stacked
from ernerf_ti.media.provenance.note import SOURCE_TYPE
from tests.live_server.fake_portrait import BEEP, FakePortrait
from tests.live_server.running import answer, running, until


async def received(track, n):
    return [await asyncio.wait_for(track.recv(), 10) for _ in range(n)]


def test_a_client_receives_pictures_sound_and_the_note():
    async def check():
        async with running(FakePortrait((96, 64), signal=True)) as at:
            socket, _ = await at.connect()
            peer, notes = RTCPeerConnection(), []
            video, audio = (peer.addTransceiver(kind, "recvonly") for kind in ("video", "audio"))
            peer.createDataChannel("synthesized").on("message", notes.append)
            await peer.setLocalDescription(await peer.createOffer())
            await socket.send_json({"type": "offer", "sdp": peer.localDescription.sdp})
            found = await answer(socket, "answer", "error")
            assert f"\r\ni=Synthesized by ernerf-ti, not a recording of a person. {SOURCE_TYPE}\r\n" in found["sdp"]
            await peer.setRemoteDescription(RTCSessionDescription(found["sdp"], "answer"))
            pictures, sounds = await asyncio.gather(
                received(video.receiver.track, 25), received(audio.receiver.track, 60)
            )
            assert {(picture.width, picture.height) for picture in pictures} == {(96, 64)}
            steps = np.diff([float(picture.pts * picture.time_base) for picture in pictures])
            assert np.median(steps) == np.float64(0.04) or abs(np.median(steps) - 0.04) < 1e-3
            brightness = [picture.to_ndarray(format="gray").mean() for picture in pictures]
            assert max(brightness) > 200 and min(brightness) < 40
            samples = np.concatenate([sound.to_ndarray()[0, ::2] for sound in sounds]) / 32768
            spectrum = np.abs(np.fft.rfft(samples))
            frequencies = np.fft.rfftfreq(len(samples), 1 / sounds[0].sample_rate)
            assert np.abs(samples).max() > 0.2 and abs(frequencies[spectrum.argmax()] - BEEP) < 30
            await until(lambda: notes)
            assert json.loads(notes[0])["digitalSourceType"] == SOURCE_TYPE
            await socket.close()
            await until(lambda: at.server.n_sessions == 0)
            await peer.close()

    asyncio.run(check())


def test_what_a_client_sends_and_asks_beyond_one_picture_is_refused():
    async def check():
        async with running() as at:
            socket, _ = await at.connect()
            for kinds, code in ((["video", "video"], "bad_offer"), ([], "bad_offer"), (["video", "audio"], None)):
                peer = RTCPeerConnection()
                for kind in kinds:
                    peer.addTransceiver(kind, "sendrecv")
                peer.createDataChannel("x")
                await peer.setLocalDescription(await peer.createOffer())
                await socket.send_json({"type": "offer", "sdp": peer.localDescription.sdp})
                found = await answer(socket, "answer", "error")
                assert found.get("code") == code
                if code is None:
                    assert found["sdp"].count("a=sendonly") == 2 and "a=sendrecv" not in found["sdp"]
                await peer.close()
            await socket.close()

    asyncio.run(check())


def test_opacity_lies_below_the_colors():
    image = np.arange(2 * 3 * 4, dtype=np.uint8).reshape(2, 3, 4)
    found = stacked(image)
    np.testing.assert_array_equal(found[:2], image[..., :3])
    np.testing.assert_array_equal(found[2:], image[..., [3, 3, 3]])
    assert stacked(image[..., :3]) is not None and stacked(image[..., :3]).shape == (2, 3, 3)


def test_the_note_in_a_session_description_follows_its_name():
    assert with_note("v=0\r\ns=-\r\nt=0 0\r\n").split("\r\n")[1:4:2] == ["s=-", "t=0 0"]


def test_the_watermark_is_legible_on_white_and_black_and_leaves_the_face():
    mark = Watermark()
    for value in (0, 255):
        image = np.full((256, 256, 3), value, np.uint8)
        marked = mark(image)
        changed = np.abs(marked.astype(int) - value).max(2) > 60
        assert 100 < changed.sum() < 4000 and not changed[:220].any()
        assert (image == value).all()
    clear = mark(np.zeros((256, 256, 4), np.uint8))
    assert clear[..., 3].max() == 255 and clear[:220].max() == 0
    assert mark(np.zeros((16, 16, 3), np.uint8)).shape == (16, 16, 3)
