"""Where datasets and caches lie on this machine: options, environment variables, a configuration file."""

from __future__ import annotations

import os
import re
from pathlib import Path
from typing import Any

from data.errors import DataError

_APPLICATION = "segmamba-bench"


def locate(name: str, data_dir: Path | None = None, how_to_obtain: str = "ask who keeps them.") -> Path:
    """The folder of a dataset: ``data_dir``, else the environment, else the configuration file.

    Args:
        name: of the dataset.
        data_dir: what the command line says, if anything.
        how_to_obtain: what the dataset's card says, for the message.

    Raises:
        DataError: nothing names a folder, or what names one first names none that exists.
    """
    folder = configured(name, data_dir)
    if folder is not None:
        return folder
    raise DataError(
        f"nothing says where the dataset '{name}' lies. Expected one of these three: the option "
        f'--data-dir FOLDER; the environment variable {environment_variable(name)}; or the line\n  {name} = "FOLDER"\n'
        f"under [data] in {config_path()}. To obtain the data: {how_to_obtain} "
        "To try the harness without them: --dataset phantom."
    )


def configured(name: str, data_dir: Path | None = None) -> Path | None:
    """As `locate`, but None where nothing names a folder."""
    variable = environment_variable(name)
    if data_dir is not None:
        return _folder(data_dir, "the option --data-dir", name)
    if value := os.environ.get(variable):
        return _folder(Path(value), f"the environment variable {variable}", name)
    config = config_path()
    if (entry := _config_entry(config, name)) is not None:
        # Relative to the file, so that its meaning does not change with the working directory.
        return _folder(config.parent / entry.expanduser(), f"the entry {name} under [data] in {config}", name)
    return None


def environment_variable(name: str) -> str:
    """Name of the environment variable that says where a dataset lies, e.g. ``BENCH_BRATS2023_DIR``."""
    return f"BENCH_{re.sub(r'[^A-Z0-9]', '_', name.upper())}_DIR"


def config_path() -> Path:
    """The configuration file: ``$BENCH_CONFIG``, else ``./bench.toml`` if there is one, else the user's own.

    Raises:
        DataError: ``$BENCH_CONFIG`` names no file.
    """
    if value := os.environ.get("BENCH_CONFIG"):
        path = Path(value).expanduser()
        if not path.is_file():
            raise DataError(
                f"the environment variable BENCH_CONFIG names {path}, which is no file. Expected a TOML "
                "file; correct the variable or unset it."
            )
        return path
    if (path := Path("bench.toml")).is_file():
        return path.resolve()
    from platformdirs import user_config_path

    return user_config_path(_APPLICATION, appauthor=False) / "config.toml"


def cache_root() -> Path:
    """Folder for what can be made again, which may not exist yet: ``$BENCH_CACHE_DIR``, else the user's cache."""
    if value := os.environ.get("BENCH_CACHE_DIR"):
        return Path(value).expanduser()
    from platformdirs import user_cache_path

    return user_cache_path(_APPLICATION, appauthor=False)


def _folder(path: Path, source: str, name: str) -> Path:
    path = path.expanduser()
    if path.is_dir():
        return path
    what = "a file" if path.exists() else "nothing there"
    raise DataError(
        f"{source} says that the dataset '{name}' lies in {path}, but there is {what}. Expected a folder; "
        f"correct {source}."
    )


def _config_entry(config: Path, name: str) -> Path | None:
    if not config.is_file():
        return None
    table = _read_toml(config).get("data", {})
    if isinstance(table, dict):
        if name not in table:
            return None
        if isinstance(table[name], str):
            return Path(table[name])
    raise DataError(
        f"{config}: expected a folder's name in quotes for '{name}' under [data], found {table!r}. "
        f'Write\n  [data]\n  {name} = "FOLDER"'
    )


def _read_toml(path: Path) -> dict[str, Any]:
    import tomllib

    try:
        return tomllib.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:  # both bad TOML and bad UTF-8 are ValueErrors
        raise DataError(f"{path} cannot be read as TOML: {error}. Correct it, or remove it.") from error
