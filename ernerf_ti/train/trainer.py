"""Training of a portrait: head, head fine, torso, one after the other."""

import json
import math
from collections.abc import Callable
from functools import cached_property, partial
from pathlib import Path
from time import perf_counter

import numpy as np
import torch
from torch import Tensor
from tqdm import tqdm

from ernerf_ti.data.capture import Capture
from ernerf_ti.media.files import write_image, write_json
from ernerf_ti.portrait.camera import CameraCorrection, all_pixels
from ernerf_ti.portrait.portrait import Portrait
from ernerf_ti.portrait.render.head import render_head
from ernerf_ti.portrait.render.torso import render_torso
from ernerf_ti.run.checkpoint import load_checkpoint, save_checkpoint
from ernerf_ti.run.folder import RunFolder
from ernerf_ti.run.serialization import config_from_dict, config_to_dict
from ernerf_ti.train import losses
from ernerf_ti.train.config import STAGES, StageConfig, TrainConfig
from ernerf_ti.train.optimizer import WeightAverage, set_learning_rates, stage_optimizer
from ernerf_ti.train.perceptual import PerceptualLoss, perceptual_loss
from ernerf_ti.train.pixel_sampling import Rectangle, patch_pixels, random_pixels, rectangle_pixels
from ernerf_ti.train.training_frames import TrainingFrames


class TrainingError(RuntimeError):
    """Training can't go on; the message says at which step and what is left."""


class Trainer:
    """Trains a portrait of a capture in a run folder.

    The random numbers of a step come from the seed, the stage and the step alone, so that a run that is
    resumed is the run that was never interrupted.

    Args:
        capture: what is learned from.
        config: how.
        folder: the run folder; made if it is not there.
        device: where the portrait is trained.
    """

    def __init__(self, capture: Capture, config: TrainConfig, folder: Path, device: torch.device | str = "cpu"):
        self.capture, self.config, self.folder = capture, config, Path(folder)
        self.device = torch.device(device)
        self.frames = TrainingFrames(capture, capture.train, self.device)
        self.held_out = TrainingFrames(capture, capture.val, self.device)
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(config.seed)
            self.portrait = Portrait(config.portrait, capture.audio_windows.shape[2], len(self.frames))
            self.cameras = CameraCorrection(len(self.frames))
        if config.standardize_audio:
            self.portrait.head.audio_encoder.standardize(self.frames.own_windows())
        self.portrait.to(self.device)
        self.cameras.to(self.device)
        self.portrait.head_grid.mark_unseen_cells(self.frames.poses, tuple(capture.intrinsics))
        self.start_stage(STAGES[0])
        self.folder.mkdir(parents=True, exist_ok=True)
        write_json(RunFolder(self.folder).config, config_to_dict(config))
        RunFolder(self.folder).write_capture(self.capture.folder)

    @classmethod
    def resume(cls, capture: Capture, folder: Path, device: torch.device | str = "cpu") -> "Trainer":
        """Go on with the run of a folder.

        Raises:
            FileNotFoundError, ValueError: no checkpoint there, or one of another capture.
        """
        path = RunFolder(folder).checkpoint
        content = load_checkpoint(path, device)
        trainer = cls(capture, config_from_dict(TrainConfig, content["train_config"]), folder, device)
        expected = trainer._identity()
        if content["capture"] != expected:
            raise ValueError(
                f"{path}: expected a run of this capture ({expected}), got one of {content['capture']}; "
                "pass the capture that the run was begun with"
            )
        trainer.portrait.load_state_dict(content["portrait"])
        trainer.cameras.load_state_dict(content["cameras"])
        trainer.portrait.head_grid.set_bitfield(trainer.portrait.head_grid.bitfield.clone())
        trainer.start_stage(content["stage"])
        trainer.step, trainer.ended = content["step"], content["ended"]
        trainer.optimizer.load_state_dict(content["optimizer"])
        trainer.average.load_state_dict(content["average"])
        return trainer

    def run(self, stages: tuple[str, ...] = STAGES, should_stop: Callable[[], bool] = lambda: False) -> bool:
        """Train from where the run is to the end of the stages.

        Args:
            stages: which of them.
            should_stop: asked after each step; if so the state is saved.

        Returns:
            Whether the end was reached.

        Raises:
            TrainingError: the loss is no number.
            FileNotFoundError: the perceptual loss needs weights that are not there; before the first step.
        """
        if "finetune" in stages and self.config.finetune.iterations:
            _ = self._perceptual
        for stage in STAGES[STAGES.index(self.stage) :]:
            if stage not in stages:
                continue
            if stage != self.stage:
                self.start_stage(stage)
            if not self._run_stage(should_stop):
                return False
        return True

    def start_stage(self, stage: str) -> None:
        """Make a stage the current one, at its step 0."""
        self.stage, self.step, self.ended = stage, 0, False
        for parameter in self.portrait.parameters():
            parameter.requires_grad_(False)
        self.optimizer = stage_optimizer(self._trained().items(), self.config.optimizer, self._stage_config())
        for parameter in self._trained().values():
            parameter.requires_grad_(True)
        self.average = self._new_average()

    def train_step(self) -> dict[str, Tensor]:
        """One step of the current stage: its terms, the loss among them."""
        generator = self._generator()
        i = self._frame_of_step()
        if self.step % self.config.grid_update_every == 0:
            self._update_grid(generator)
        stage = self._stage_config()
        set_learning_rates(self.optimizer, stage, self.step / stage.iterations)
        terms = self._torso_terms(i, generator) if self.stage == "torso" else self._head_terms(i, generator)
        loss = sum(terms[name] for name in terms if not name.startswith("measured"))
        self.optimizer.zero_grad(set_to_none=True)
        loss.backward()
        self.optimizer.step()
        self.step += 1
        if self.step % self._average_every() == 0:
            self.average.update()
        return {"loss": loss.detach(), **{name: term.detach() for name, term in terms.items()}}

    def save(self) -> None:
        """Write the state of the run."""
        save_checkpoint(
            RunFolder(self.folder).checkpoint,
            {
                "train_config": config_to_dict(self.config),
                "portrait_config": config_to_dict(self.config.portrait),
                "capture": self._identity(),
                "stage": self.stage,
                "step": self.step,
                "ended": self.ended,
                "portrait": self.portrait.state_dict(),
                "cameras": self.cameras.state_dict(),
                "optimizer": self.optimizer.state_dict(),
                "average": self.average.state_dict(),
                "scene": self._scene(),
            },
        )

    @torch.no_grad()
    def validate(self) -> dict[str, float]:
        """Mean PSNR of whole held-out frames in dB; writes the first ones beside their targets."""
        n = min(self.config.validation_frames, len(self.held_out))
        chosen = np.linspace(0, len(self.held_out) - 1, n).astype(int)
        errors, rows = [], []
        averaged = self.config.optimizer.ema_decay > 0
        if averaged:
            self.average.swap()
        for i in chosen:
            image, target = self._held_out_frame(int(i))
            errors.append(float((image - target).square().mean()))
            rows.append(torch.cat((target, image), 1))
        if averaged:
            self.average.swap()
        picture = (torch.cat(rows[:4]).clamp(0, 1) * 255 + 0.5).to(torch.uint8).cpu().numpy()
        path = RunFolder(self.folder).validation / f"{self.stage}_{self.step:06d}.png"
        path.parent.mkdir(exist_ok=True)
        write_image(path, picture)
        return {"validation_psnr": float(np.mean([losses.psnr(error) for error in errors]))}

    def _run_stage(self, should_stop: Callable[[], bool]) -> bool:
        stage = self._stage_config()
        if self.ended:
            return True
        bar = tqdm(total=stage.iterations, initial=self.step, desc=self.stage, unit="step")
        with bar, _Log(self.folder) as log:
            stage_begin = begin = perf_counter()
            rays, samples, shown = 0, 0, {}
            while self.step < stage.iterations:
                terms = self.train_step()
                rays += int(terms.pop("measured_rays", 0))
                samples += terms.pop("measured_samples", 0)
                bar.update()
                if self.step % self.config.log_every == 0 or self.step == stage.iterations:
                    values = {name.removeprefix("measured_"): float(term) for name, term in terms.items()}
                    if not math.isfinite(values["loss"]):
                        raise self._divergence(values["loss"])
                    seconds = perf_counter() - begin
                    values |= {"rays_per_s": rays / seconds, "samples_per_ray": float(samples) / max(1, rays)}
                    values["psnr"] = losses.psnr(values.pop("mse"))
                    values["seconds"] = perf_counter() - stage_begin  # since the stage began, or went on
                    shown |= {"loss": f"{values['loss']:.4f}", "psnr": f"{values['psnr']:.1f}"}
                    shown |= {
                        "rays/s": f"{values['rays_per_s']:.0f}",
                        "samples/ray": f"{values['samples_per_ray']:.1f}",
                    }
                    bar.set_postfix(shown)
                    log.write(self.stage, self.step, values)
                    begin, rays, samples = perf_counter(), 0, 0
                if self.step % self.config.validate_every == 0 and self.step < stage.iterations:
                    log.write(self.stage, self.step, self.validate())
                if self.step % self.config.save_every == 0:
                    self.save()
                if self.step < stage.iterations and should_stop():
                    self.save()
                    return False
            if self.config.optimizer.ema_decay > 0:
                self.average.swap()  # the next stage, and the pictures, begin with the average
            self._refresh_grid()
            self.average = self._new_average()
            self.ended = True
            log.write(self.stage, self.step, self.validate())
            self.save()
        return not should_stop() or self.stage == STAGES[-1]

    def _trained(self) -> dict[str, torch.nn.Parameter]:
        part = "torso" if self.stage == "torso" else "head"
        found = {name: p for name, p in self.portrait.named_parameters() if name.startswith(f"{part}.")}
        if part == "head" and self.config.refine_cameras:
            found |= {f"cameras.{name}": p for name, p in self.cameras.named_parameters()}
        return found

    def _new_average(self) -> WeightAverage:
        return WeightAverage(self._trained(), self.config.optimizer.ema_decay)

    def _average_every(self) -> int:
        """Steps between looks at the weights: the average reaches over the last fifth of the stage or so."""
        return max(1, self._stage_config().iterations // 125)

    def _stage_config(self) -> StageConfig:
        return getattr(self.config, self.stage)

    def _generator(self) -> torch.Generator:
        """Of this step's random numbers."""
        seed = np.random.SeedSequence([self.config.seed, STAGES.index(self.stage), self.step, 0])
        return torch.Generator().manual_seed(int(seed.generate_state(1, np.uint64)[0]) >> 1)

    def _frame_of_step(self) -> int:
        """Every frame once, in a random order, then again in another."""
        n = len(self.frames)
        seed = np.random.SeedSequence([self.config.seed, STAGES.index(self.stage), self.step // n, 1])
        return int(np.random.default_rng(seed).permutation(n)[self.step % n])

    def _head_terms(self, i: int, generator: torch.Generator) -> dict[str, Tensor]:
        config, weights, progress = self.config, self.config.losses, self.step / self._stage_config().iterations
        pixels, shape, perceptual_weight = self._draw_pixels(i, generator)
        batch = self.frames.rays(i, pixels, "head")
        if self.stage == "head":
            colors = self._random_colors(len(pixels), generator)
            self.frames.randomize_background(batch, i, pixels, colors)
        if config.refine_cameras:
            batch.rays_o, batch.rays_d = self.cameras(batch.rays_o, batch.rays_d, i)
        conditioning = self.frames.conditioning(i)
        jitter = (torch.rand(1, generator=generator) - 0.5) * 0.1
        conditioning.eye_closure = conditioning.eye_closure + jitter.to(self.device)
        noise = torch.rand(len(pixels), generator=generator).to(self.device)
        coarse = self.stage == "head"
        field = self.portrait.head.bind(conditioning, with_uncertainty=coarse and weights.uncertainty > 0)
        output = render_head(
            field,
            self.portrait.head_grid,
            batch.rays_o,
            batch.rays_d,
            config.portrait.march,
            batch.background_rgb,
            noise,
        )
        error = losses.squared_error(output, batch)
        terms = {"measured_mse": error.mean()}
        if output.uncertainty is not None:
            error = losses.uncertainty_weighted(error, output, batch, progress)
        terms["color"] = error.mean()
        if shape is not None and self._perceptual is not None:
            pictures = (rgb.view(-1, *shape, 3).permute(0, 3, 1, 2) for rgb in (output.rgb, batch.target_rgb))
            terms["perceptual"] = perceptual_weight * self._perceptual(*pictures).mean()
        share = progress if coarse else 1.0
        terms["opacity_entropy"] = weights.opacity_entropy * losses.opacity_entropy(output.opacity)
        terms["audio_attention"] = share * weights.audio_attention * losses.audio_attention(output, batch)
        terms["eye_attention"] = (
            share * weights.eye_attention * losses.eye_attention(output, batch, config.portrait.march.max_steps)
        )
        if coarse and weights.smoothness > 0 and self.step % config.grid_update_every == 0:
            terms["smoothness"] = progress * weights.smoothness * self._roughness(output, batch, generator)
        terms["measured_rays"] = torch.tensor(len(pixels))
        terms["measured_samples"] = output.n_samples.sum()
        return terms

    def _torso_terms(self, i: int, generator: torch.Generator) -> dict[str, Tensor]:
        stage, torso = self._stage_config(), self.portrait.torso
        pixels = random_pixels(stage.n_rays, self._whole_frame(), generator)
        batch = self.frames.rays(i, pixels, "torso", self._random_colors(len(pixels), generator))
        pose = self.frames.poses[i].to(self.device)
        field = partial(torso, head_pose=pose, identity=i)
        rgb, _ = render_torso(field, self.portrait.torso_grid, batch.pixel_coords, batch.background_rgb)
        error = (rgb - batch.target_rgb).square().mean()
        return {
            "measured_mse": error,
            "color": error,
            "anchors": losses.anchor_deviation(torso.anchors),
            "measured_rays": torch.tensor(len(pixels)),
        }

    def _draw_pixels(self, i: int, generator: torch.Generator) -> tuple[Tensor, tuple[int, int] | None, float]:
        """Pixels of a head step, and for the fine stage the shape of its patches and the perceptual weight."""
        stage, height, width = self._stage_config(), self.frames.height, self.frames.width
        if self.stage == "head":
            n_lips, n_eyes = (int(share * stage.n_rays) for share in (stage.lips_fraction, stage.eyes_fraction))
            drawn = (
                (stage.n_rays - n_lips - n_eyes, self._whole_frame()),
                (n_lips, self.frames.lips(i)),
                (n_eyes, self.frames.eyes(i)),
            )
            return torch.cat([random_pixels(n, place, generator) for n, place in drawn]), None, 0.0
        if self.step % 2 == 0:
            lips = self.frames.lips(i)
            shape = (lips.row1 - lips.row0, lips.column1 - lips.column0)
            return rectangle_pixels(lips), shape, self.config.losses.lips_perceptual
        size = stage.patch_size
        pixels = patch_pixels(max(1, stage.n_rays // size**2), size, height, width, generator)
        return pixels, (size, size), self.config.losses.patch_perceptual

    def _random_colors(self, n_pixels: int, generator: torch.Generator) -> Tensor:
        """[K, 3] to be put behind the first K of so many pixels."""
        return torch.rand(int(self.config.random_background_fraction * n_pixels), 3, generator=generator)

    def _whole_frame(self) -> Rectangle:
        return Rectangle(0, self.frames.height, 0, self.frames.width)

    def _roughness(self, output, batch, generator: torch.Generator) -> Tensor:
        """How much attention and uncertainty differ a thousandth of the scene apart, at the rays' surfaces."""
        depth = (output.depth / output.opacity.clamp(min=1e-3)).detach()
        points = (batch.rays_o + depth[:, None] * batch.rays_d).detach()[output.opacity.detach() > 0.5]
        if not len(points):
            return output.opacity.new_zeros(())
        bound = self.config.portrait.head.bound
        moved = points + (torch.rand(points.shape, generator=generator).to(self.device) * 2 - 1) * 1e-3
        with torch.no_grad():
            there = self.portrait.head.regularized(points.clamp(-bound, bound))
        here = self.portrait.head.regularized(moved.clamp(-bound, bound))
        return sum((a - b).square().mean() for a, b in zip(here, there, strict=True))

    @torch.no_grad()
    def _update_grid(self, generator: torch.Generator) -> None:
        i = int(torch.randint(len(self.frames), (1,), generator=generator))
        # The grids draw many numbers: from a generator on their own device.
        noise = torch.Generator(self.device).manual_seed(int(torch.randint(2**62, (1,), generator=generator)))
        conditioning = self.frames.conditioning(i)
        if self.stage == "torso":
            field = partial(self.portrait.torso, head_pose=conditioning.head_pose, identity=i)
            self.portrait.torso_grid.update(lambda coords: field(coords).alpha, noise)
        else:
            field = self.portrait.head.bind(conditioning, with_uncertainty=False)
            self.portrait.head_grid.update(field.densities, noise)

    def _refresh_grid(self) -> None:
        """Once more, for weights that have changed at the end of a stage."""
        self._update_grid(torch.Generator().manual_seed(self.config.seed))

    def _held_out_frame(self, i: int) -> tuple[Tensor, Tensor]:
        """[H, W, 3] rendered and true: of the head before the true torso, or of the whole portrait."""
        size = (self.frames.width, self.frames.height)
        pixels = all_pixels(self.frames.height, self.frames.width)
        whole = self.stage == "torso"
        batch = self.held_out.rays(i, pixels, "portrait" if whole else "head")
        shape = (size[1], size[0], 3)
        conditioning = self.held_out.conditioning(i, known=False)
        if whole:
            expected = self.portrait.predicted_torso_appearance(self.frames.poses.to(self.device))
            conditioning.torso_appearance = expected(conditioning.head_pose[None])[0]
        output = self.portrait.render(
            conditioning,
            tuple(self.capture.intrinsics),
            size,
            batch.background_rgb.view(shape),
            with_torso=whole,
        )
        return output.rgb, batch.target_rgb.view(shape)

    @cached_property
    def _perceptual(self) -> PerceptualLoss | None:
        """Loaded once, before the first step: it may lack its weights."""
        return perceptual_loss(self.config.finetune.perceptual, self.device)

    def _divergence(self, loss: float) -> TrainingError:
        kept = RunFolder(self.folder).checkpoint
        left = f"the last good state is in {kept}" if kept.is_file() else "nothing was saved yet"
        return TrainingError(
            f"stage {self.stage}, step {self.step}: expected a finite loss, got {loss}; {left}; "
            "train with lower rates (--optimizer.net-lr, --optimizer.grid-lr)"
        )

    def _identity(self) -> dict:
        """What a run can't change of its capture."""
        return {
            "extractor": self.capture.extractor,
            "feature_dimension": int(self.capture.audio_windows.shape[2]),
            "width": self.capture.width,
            "height": self.capture.height,
            "n_train": len(self.frames),
        }

    def _scene(self) -> dict[str, Tensor]:
        """What rendering needs of the capture, so that a checkpoint is a portrait by itself."""
        ids = np.concatenate((self.capture.train.frame_ids, self.capture.val.frame_ids))
        return {
            "intrinsics": torch.from_numpy(self.capture.intrinsics),
            "poses": torch.cat((self.frames.poses, self.held_out.poses)),
            "eye_closures": torch.from_numpy(self.capture.eye_closures[ids]),
            "background": torch.from_numpy(self.capture.background),
        }


class _Log:
    """JSON lines and TensorBoard."""

    def __init__(self, folder: Path):
        from torch.utils.tensorboard import SummaryWriter

        self._lines = RunFolder(folder).log.open("a")
        self._board = SummaryWriter(str(RunFolder(folder).tensorboard))

    def __enter__(self) -> "_Log":
        return self

    def __exit__(self, *exception) -> None:
        self._lines.close()
        self._board.close()

    def write(self, stage: str, step: int, values: dict[str, float]) -> None:
        self._lines.write(json.dumps({"stage": stage, "step": step, **values}) + "\n")
        self._lines.flush()
        for name, value in values.items():
            self._board.add_scalar(f"{stage}/{name}", value, step)
