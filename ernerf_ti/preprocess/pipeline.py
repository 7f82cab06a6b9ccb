"""Named stages that turn files into files, of which only those that are missing or out of date are run again."""

import hashlib
import os
from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ernerf_ti.media.files import file_digest, read_json, write_json
from ernerf_ti.media.whole_files import remove_leftovers

WORK_FOLDER = "preprocess"
"""Subfolder for files that only later stages read."""


class StageError(RuntimeError):
    """A stage failed; the message names it and gives the reason."""


@dataclass(frozen=True)
class Stage:
    """One step. Inputs and outputs are names of artifacts, groups of files that match a pattern."""

    name: str
    inputs: tuple[str, ...]
    outputs: tuple[str, ...]
    run: Callable[[], None]
    options: Mapping[str, Any]
    """JSON values that the result depends on besides the inputs. Files are given as paths."""


@dataclass(frozen=True)
class Pipeline:
    """Stages in order, over the files of a folder.

    For each finished stage a record is kept of its options, the content of its inputs and the names of its outputs. A
    stage is out of date if any of these has changed. Outputs may be edited: stages that depend on them run again. Only
    files in the work folder must stay as they were written, so that a damaged one is replaced. An interrupted stage has
    no record and starts over.
    """

    folder: Path
    artifacts: Mapping[str, str | Path]
    """Name -> pattern relative to the folder, or path of a file or of a folder with files elsewhere."""
    stages: Sequence[Stage]

    def run(self, only: str | None = None, log: Callable[[str], None] = print) -> None:
        """Run the stages that are out of date, or a single stage in any case.

        Args:
            only: name of the single stage.
            log: gets one line per stage.

        Raises:
            ValueError: there is no stage of that name.
            StageError: a stage failed, or its inputs are missing.
        """
        if only is not None:
            self._stage(only)
        for stage in self.stages:
            if only is not None and stage.name != only:
                continue
            try:
                record = self._record(stage)
            except OSError as error:
                raise StageError(f"stage {stage.name}: {error}") from error
            if only is None and self._is_fresh(stage, record):
                log(f"{stage.name}: up to date")
                continue
            self._require_inputs(stage)
            log(f"{stage.name}: {', '.join(stage.inputs)} -> {', '.join(stage.outputs)}")
            self._record_path(stage).unlink(missing_ok=True)
            for artifact in stage.outputs:
                self._remove(artifact)
            try:
                stage.run()
            except (OSError, ValueError, ImportError) as error:
                raise StageError(f"stage {stage.name}: {error}") from error
            missing = [artifact for artifact in stage.outputs if not self.paths(artifact)]
            assert not missing, f"{stage.name} did not write {missing}"
            outputs = {"outputs": self._names(stage.outputs), "work": self._work_digests(stage)}
            write_json(self._record_path(stage), {**record, **outputs})

    def require_runnable(self, names: Sequence[str]) -> None:
        """Check that stages can be run on their own, one after the other.

        Raises:
            ValueError: there is no stage of one of these names.
            StageError: inputs of a stage are missing, and no stage before it makes them.
        """
        made: set[str] = set()
        for stage in [self._stage(name) for name in names]:
            self._require_inputs(stage, made)
            made.update(stage.outputs)

    def require_kept(self, inputs: Iterable[Path]) -> None:
        """Check that no stage would remove what another one has yet to read.

        Args:
            inputs: files and folders that are read, under whatever name. Those that do not exist are passed over.

        Raises ValueError for a file that is an output of a stage, and for a folder that a stage writes to.
        """
        given = [(path, path.stat()) for path in inputs if path.exists()]
        for artifact in (name for stage in self.stages for name in stage.outputs):
            written = [(self.folder / self.artifacts[artifact]).parent, *self.paths(artifact)]
            states = [path.stat() for path in written if path.exists()]
            for path, state in given:
                if any(os.path.samestat(state, other) for other in states):
                    raise ValueError(
                        f"{path}: expected an input that is only read, got {artifact} "
                        f"({self.artifacts[artifact]}) of {self.folder}, which is made again; "
                        "copy it to another place and pass the copy"
                    )

    def paths(self, artifact: str) -> list[Path]:
        """The existing files of an artifact, sorted."""
        pattern = self.artifacts[artifact]
        if isinstance(pattern, Path) and not pattern.is_dir():
            return [pattern] if pattern.is_file() else []
        found = pattern.iterdir() if isinstance(pattern, Path) else self.folder.glob(pattern)
        return sorted(path for path in found if path.is_file() and not path.name.startswith("."))

    def _remove(self, artifact: str) -> None:
        for path in self.paths(artifact):
            path.unlink()
        remove_leftovers((self.folder / self.artifacts[artifact]).parent)

    def _is_fresh(self, stage: Stage, record: dict) -> bool:
        path = self._record_path(stage)
        if not path.is_file():
            return False
        try:
            written = read_json(path)
        except ValueError:
            return False
        expected = {**record, "outputs": self._names(stage.outputs), "work": self._work_digests(stage)}
        return written == expected

    def _record(self, stage: Stage) -> dict:
        options = {
            key: file_digest(value) if isinstance(value, Path) else value for key, value in stage.options.items()
        }
        return {"options": options, "inputs": {artifact: self._digest(artifact) for artifact in stage.inputs}}

    def _record_path(self, stage: Stage) -> Path:
        path = self.folder / WORK_FOLDER / "stages" / f"{stage.name}.json"
        path.parent.mkdir(parents=True, exist_ok=True)
        return path

    def _names(self, artifacts: Sequence[str]) -> str:
        """A digest of the names of the existing files."""
        names = "\n".join(path.name for artifact in artifacts for path in self.paths(artifact))
        return hashlib.sha256(names.encode()).hexdigest()

    def _work_digests(self, stage: Stage) -> dict[str, str]:
        """Digests of the outputs in the work folder."""
        patterns = {artifact: str(self.artifacts[artifact]) for artifact in stage.outputs}
        return {name: self._digest(name) for name, text in patterns.items() if text.startswith(f"{WORK_FOLDER}/")}

    def _digest(self, artifact: str) -> str:
        """A digest of the names and the content of an artifact's files."""
        total = hashlib.sha256()
        for path in self.paths(artifact):
            total.update(f"{path.name} {file_digest(path)}\n".encode())
        return total.hexdigest()

    def _stage(self, name: str) -> Stage:
        names = [stage.name for stage in self.stages]
        if name not in names:
            raise ValueError(f"stages: expected one of {', '.join(names)}, got {name!r}; choose one of these")
        return self.stages[names.index(name)]

    def _require_inputs(self, stage: Stage, made: Collection[str] = ()) -> None:
        """Raises StageError for inputs that do not exist and are not among those that are made before."""
        for artifact in stage.inputs:
            if artifact not in made and not self.paths(artifact):
                source = next((s.name for s in self.stages if artifact in s.outputs), None)
                advice = f"run stage {source} first" if source else "check the path"
                raise StageError(
                    f"stage {stage.name}: expected {artifact} ({self.artifacts[artifact]}), got no such file; {advice}"
                )
