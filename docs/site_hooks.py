"""Hooks of mkdocs.yml: pages made from the sources when the site is built.

- `assets/` lies beside `docs/`, because the README uses it too: its images are added, and `../assets/` in pages becomes
  `assets/`. Where the repository itself is browsed, the former is right.
- Notebooks become Markdown.
- `{{ help COMMAND }}` becomes the output of `ernerf-ti COMMAND --help`, `{{ help COMMAND all }}` that of `--help-all`.
- Each package gets an API page.
"""

import contextlib
import io
import os
import re
from importlib import import_module
from pathlib import Path

import nbformat
from mkdocs.config.defaults import MkDocsConfig
from mkdocs.structure.files import File, Files
from mkdocs.structure.pages import Page
from nbconvert import MarkdownExporter

ROOT = Path(__file__).resolve().parents[1]
KERNEL_PACKAGES = ("taichi_kernels.reference", "taichi_kernels.compat.torch_ngp")


def on_config(config: MkDocsConfig) -> MkDocsConfig:
    (reference,) = (entry["API reference"] for entry in config.nav if "API reference" in entry)
    reference += [{package: f"api/{package}.md"} for package in ("taichi_kernels", *KERNEL_PACKAGES, *_rooms())]
    return config


def on_files(files: Files, config: MkDocsConfig) -> Files:
    for path in sorted((ROOT / "assets").iterdir()):
        files.append(File.generated(config, f"assets/{path.name}", abs_src_path=str(path)))
    # The public names of taichi_kernels are those that its __init__ exports; elsewhere modules are the unit.
    _add_page(files, config, "taichi_kernels", ["taichi_kernels"])
    for package in (*KERNEL_PACKAGES, *_rooms()):
        _add_page(files, config, package, [package, *_modules(package)])
    for notebook in sorted((ROOT / "docs" / "notebooks").glob("*.ipynb")):
        _add_notebook(files, config, notebook)
    return files


def on_page_markdown(markdown: str, page: Page, config: MkDocsConfig, files: Files) -> str:
    up = "../" * page.file.src_uri.count("/")
    markdown = markdown.replace(f"{up}../assets/", f"{up}assets/")
    return re.sub(r"\{\{ help ([a-z -]+) \}\}", lambda match: _help(match[1].split()), markdown)


def _rooms() -> list[str]:
    """Packages of ernerf_ti with modules of their own, in alphabetical order."""
    inits = sorted((ROOT / "ernerf_ti").rglob("__init__.py"))
    names = [".".join(path.parent.relative_to(ROOT).parts) for path in inits]
    return [name for name in names if _modules(name) and name != "ernerf_ti"]


def _modules(package: str) -> list[str]:
    paths = sorted((ROOT / package.replace(".", "/")).glob("*.py"))
    return [f"{package}.{path.stem}" for path in paths if not path.stem.startswith("_")]


def _add_page(files: Files, config: MkDocsConfig, package: str, modules: list[str]) -> None:
    blocks = [f"# {package}", *(f"::: {module}" for module in modules)]
    blocks[1] += "\n    options: {show_root_heading: false}"  # the page's title says it
    files.append(File.generated(config, f"api/{package}.md", content="\n\n".join(blocks) + "\n"))


def _add_notebook(files: Files, config: MkDocsConfig, path: Path) -> None:
    text, resources = MarkdownExporter().from_notebook_node(nbformat.read(path, as_version=4))
    uri = f"notebooks/{path.stem}"
    files.remove(files.get_file_from_path(f"{uri}.ipynb"))
    note = f"*This page is the notebook [{path.name}]({path.name}).*"
    title, _, rest = text.lstrip().partition("\n")
    files.append(File.generated(config, f"{uri}.md", content=f"{title}\n\n{note}\n{rest}"))
    files.append(File.generated(config, f"{uri}.ipynb", abs_src_path=str(path)))
    for name, content in resources["outputs"].items():
        files.append(File.generated(config, f"notebooks/{name}", content=content))


def _help(command: list[str]) -> str:
    """The help of a command as a block of text."""
    main = import_module("ernerf_ti.cli.main").main
    output = io.StringIO()
    os.environ["COLUMNS"] = "84"
    arguments = [*command[:-1], "--help-all"] if command[-1] == "all" else [*command, "--help"]
    with contextlib.redirect_stdout(output), contextlib.suppress(SystemExit):
        main(arguments)
    if not output.getvalue():
        raise ValueError(f"ernerf-ti {' '.join(command)} --help printed nothing")
    return f"``` {{ .text .help }}\n{output.getvalue().rstrip()}\n```"
