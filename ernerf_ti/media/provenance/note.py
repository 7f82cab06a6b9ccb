"""The machine-readable note in pictures: text that says that they are synthesized.

Videos carry theirs as tags of the container, which :class:`ernerf_ti.media.video_writer.VideoWriter` writes.
"""

import re
import struct
import zlib
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import BinaryIO
from xml.sax.saxutils import quoteattr

import numpy as np

from ernerf_ti.media.images import write_image
from ernerf_ti.media.whole_files import replacing

SOURCE_TYPE = "http://cv.iptc.org/newscodes/digitalsourcetype/trainedAlgorithmicMedia"
"""The IPTC term for media created by a trained model."""
COMPOSITE_TYPE = "http://cv.iptc.org/newscodes/digitalsourcetype/compositeWithTrainedAlgorithmicMedia"
"""The IPTC term for recordings of which a part was created by a trained model."""
_SIGNATURE = b"\x89PNG\r\n\x1a\n"
_XMP = "XML:com.adobe.xmp"
_LONGEST = 1 << 20  # bytes of a text that is read
_PACKET = re.compile(rb"<x:xmpmeta\b.*?</x:xmpmeta>", re.DOTALL)
_DIGITAL_SOURCE_TYPE = re.compile(r"""DigitalSourceType\s*(?:=\s*["']|>)\s*([^"'<\s]+)""")


def write_synthesized_png(
    path: Path,
    image: np.ndarray,
    note: Mapping[str, str],
    before_rename: Callable[[Path], None] | None = None,
    source_type: str = SOURCE_TYPE,
) -> None:
    """Write a .png that says how it was made, as text chunks and as XMP; the file appears with its note.

    Args:
        path: the file.
        image: [H, W], [H, W, 3] RGB or [H, W, 4] RGBA, uint8.
        note: texts by name, such as title and comment.
        before_rename: called with the complete temporary file, which it may replace in place, for signatures.
        source_type: the IPTC term.

    Raises OSError if the file can't be written.
    """
    with replacing(path) as temporary:
        write_image(temporary, image)
        data = temporary.read_bytes()
        begin = len(_SIGNATURE) + 12 + 13  # after the header
        texts = [*((name.capitalize(), text) for name, text in note.items()), (_XMP, _xmp(source_type))]
        chunks = b"".join(_text_chunk(name, text) for name, text in texts)
        temporary.write_bytes(data[:begin] + chunks + data[begin:])
        if before_rename is not None:
            before_rename(temporary)


def read_png_note(path: Path) -> dict[str, str]:
    """Texts of a PNG by name in lower case, and `digitalSourceType` if its XMP has one; none from another file.

    Only text that is not compressed is read, and nothing after damage.
    """
    found = {}
    with open(path, "rb") as file:
        for kind, data in _chunks(file):
            name, zero, rest = data.partition(b"\0")
            if not zero:
                continue
            if kind == b"iTXt":
                if rest[:2] != b"\0\0":
                    continue
                text = rest[2:].partition(b"\0")[2].partition(b"\0")[2].decode("utf-8", "replace")
            else:
                text = rest.decode("latin-1")
            if name.decode("latin-1") == _XMP:
                if match := _DIGITAL_SOURCE_TYPE.search(text):
                    found["digitalSourceType"] = match[1]
            else:
                found[name.decode("latin-1").lower()] = text
    return found


def read_picture_note(path: Path) -> dict[str, str]:
    """What :func:`read_png_note` finds in a PNG; of a picture in another format, `digitalSourceType` of its XMP.

    Other formats store XMP as plain text, which is made to be found by a search through the file [XMP specification,
    part 3].
    """
    if png_size(path):
        return read_png_note(path)
    packets = _PACKET.findall(path.read_bytes())
    types = (_DIGITAL_SOURCE_TYPE.search(packet.decode("utf-8", "replace")) for packet in packets)
    return next(({"digitalSourceType": found[1]} for found in types if found), {})


def png_size(path: Path) -> tuple[int, int] | None:
    """Width and height in the header of a PNG; None for another file."""
    with open(path, "rb") as file:
        start = file.read(len(_SIGNATURE) + 16)
    if not start.startswith(_SIGNATURE) or start[12:16] != b"IHDR" or len(start) < 24:
        return None
    width, height = struct.unpack(">II", start[16:])
    return width, height


def _chunks(file: BinaryIO) -> Iterator[tuple[bytes, bytes]]:
    """Kind and content of the text chunks."""
    if file.read(len(_SIGNATURE)) != _SIGNATURE:
        return
    while len(head := file.read(8)) == 8:
        length, kind = struct.unpack(">I4s", head)
        if kind == b"IEND":
            return
        if kind in (b"tEXt", b"iTXt") and length <= _LONGEST:
            data = file.read(length)
            if file.read(4) != struct.pack(">I", zlib.crc32(kind + data)):
                return
            yield kind, data
        else:
            file.seek(length + 4, 1)


def _text_chunk(name: str, text: str) -> bytes:
    # Keyword; not compressed; no language and no translated keyword.
    data = b"iTXt" + name.encode("latin-1") + b"\0\0\0\0\0" + text.encode("utf-8")
    return struct.pack(">I", len(data) - 4) + data + struct.pack(">I", zlib.crc32(data))


def _xmp(source_type: str) -> str:
    return (
        '<?xpacket begin="\ufeff" id="W5M0MpCehiHzreSzNTczkc9d"?><x:xmpmeta xmlns:x="adobe:ns:meta/">'
        '<rdf:RDF xmlns:rdf="http://www.w3.org/1999/02/22-rdf-syntax-ns#"><rdf:Description rdf:about="" '
        'xmlns:Iptc4xmpExt="http://iptc.org/std/Iptc4xmpExt/2008-02-29/" '
        f"Iptc4xmpExt:DigitalSourceType={quoteattr(source_type)}/></rdf:RDF></x:xmpmeta>"
        '<?xpacket end="r"?>'
    )
