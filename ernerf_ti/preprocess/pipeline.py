"""Named stages that turn files into files; only what is missing or out of date is run again."""

import hashlib
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ernerf_ti.media.files import file_digest, read_json, write_json


class StageError(RuntimeError):
    """A stage that could not do its work; the message names it and says why."""


@dataclass(frozen=True)
class Stage:
    """One step. Inputs and outputs are names of artefacts, groups of files with a pattern each."""

    name: str
    inputs: tuple[str, ...]
    outputs: tuple[str, ...]
    run: Callable[[], None]
    options: Mapping[str, Any]
    """What the result depends on besides the inputs, as JSON values. Files are given as paths."""


@dataclass(frozen=True)
class Pipeline:
    """Stages in order, over the files of a folder.

    Beside each stage's outputs a note is kept of its options and of the content of its inputs; a stage is
    out of date when they have changed or an output is missing. A stage that was interrupted has no
    note, and begins anew.
    """

    folder: Path
    artefacts: Mapping[str, str | Path]
    """Name -> pattern relative to the folder, or path of a file elsewhere."""
    stages: Sequence[Stage]

    def run(self, only: str | None = None, say: Callable[[str], None] = print) -> None:
        """Run what is out of date, or one stage whatever its state.

        Args:
            only: name of a stage.
            say: told of each stage.

        Raises:
            ValueError: no stage of that name.
            StageError: a stage failed, or its inputs are missing.
        """
        names = [stage.name for stage in self.stages]
        if only is not None and only not in names:
            raise ValueError(f"only: expected one of {', '.join(names)}, got {only!r}; choose one of these")
        for stage in self.stages:
            if only is not None and stage.name != only:
                continue
            try:
                note = self._note(stage)
            except OSError as error:
                raise StageError(f"stage {stage.name}: {error}") from error
            if only is None and self._is_fresh(stage, note):
                say(f"{stage.name}: up to date")
                continue
            self._require_inputs(stage)
            say(f"{stage.name}: {', '.join(stage.inputs)} -> {', '.join(stage.outputs)}")
            self._note_path(stage).unlink(missing_ok=True)
            for artefact in stage.outputs:
                for path in self.paths(artefact):
                    path.unlink()
            try:
                stage.run()
            except (OSError, ValueError, ImportError) as error:
                raise StageError(f"stage {stage.name}: {error}") from error
            missing = [artefact for artefact in stage.outputs if not self.paths(artefact)]
            assert not missing, f"{stage.name} did not write {missing}"
            write_json(self._note_path(stage), {**note, "outputs": self._names(stage.outputs)})

    def paths(self, artefact: str) -> list[Path]:
        """The files of an artefact that are there, in order."""
        place = self.artefacts[artefact]
        if isinstance(place, Path):
            return [place] if place.is_file() else []
        return sorted(path for path in self.folder.glob(place) if not path.name.startswith("."))

    def _is_fresh(self, stage: Stage, note: dict) -> bool:
        path = self._note_path(stage)
        if not path.is_file():
            return False
        try:
            written = read_json(path)
        except ValueError:
            return False
        return written == {**note, "outputs": self._names(stage.outputs)}

    def _note(self, stage: Stage) -> dict:
        options = {
            key: file_digest(value) if isinstance(value, Path) else value for key, value in stage.options.items()
        }
        return {"options": options, "inputs": {artefact: self._digest(artefact) for artefact in stage.inputs}}

    def _note_path(self, stage: Stage) -> Path:
        path = self.folder / "preprocess" / "stages" / f"{stage.name}.json"
        path.parent.mkdir(parents=True, exist_ok=True)
        return path

    def _names(self, artefacts: Sequence[str]) -> str:
        """A digest of which files there are."""
        names = "\n".join(path.name for artefact in artefacts for path in self.paths(artefact))
        return hashlib.sha256(names.encode()).hexdigest()

    def _digest(self, artefact: str) -> str:
        """Of the names and the content of an artefact's files."""
        total = hashlib.sha256()
        for path in self.paths(artefact):
            total.update(f"{path.name} {file_digest(path)}\n".encode())
        return total.hexdigest()

    def _require_inputs(self, stage: Stage) -> None:
        for artefact in stage.inputs:
            if not self.paths(artefact):
                source = next((s.name for s in self.stages if artefact in s.outputs), None)
                remedy = f"run stage {source} first" if source else "see whether the path is right"
                raise StageError(
                    f"stage {stage.name}: expected {artefact} ({self.artefacts[artefact]}), got no such file; {remedy}"
                )
