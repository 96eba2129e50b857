"""Runs in an image's build stage: lays out the root file system of the final image, which holds Python and one program.

    PYTHONPATH=ROOT/app python3 images/assemble.py ROOT PACKAGE

ROOT/app holds the program and its packages already. Added are the interpreter, the standard library without what a server
never imports, the shared libraries that these need, the notices of all that is copied, and the few files of /etc that the C
library reads. No shell, no pip, no package manager. Everything is compiled to bytecode here that is valid whatever the files'
dates, because nothing can be written where the image runs. The build ends here when a module of PACKAGE, the program, cannot
be imported, or when something has no notice. Works on any base of Debian's kin with Python 3.11 or newer. Must not know which
program it is.
"""

import compileall
import py_compile
import re
import shutil
import subprocess
import sys
import sysconfig
from collections.abc import Iterator
from pathlib import Path

# Never imported by a server: tools, tutorials, tests, user interfaces, and formats that nothing of ours reads.
UNUSED_MODULES = {
    "__pycache__", "__phello__", "dist-packages", "distutils", "ensurepip", "idlelib", "lib2to3", "pydoc_data",
    "site-packages", "test", "tkinter", "turtle.py", "turtledemo", "venv",
}  # fmt: skip
UNUSED_EXTENSIONS = (
    "_crypt", "_ctypes_test", "_curses", "_dbm", "_gdbm", "_sqlite3", "_test", "_tkinter", "_xx", "audioop", "nis",
    "ossaudiodev", "readline", "spwd", "xx",
)  # fmt: skip
# Of a package: what only its builders and its own tests need.
UNUSED_FILES = ("*.c", "*.h", "*.hpp", "*.pxd", "*.pxi", "*.pyi", "*.pyx", "tests")
LOADED_AT_RUN_TIME = "libgcc_s.so.1"  # by the C library, when a thread is cancelled
LICENCE = re.compile("licen[cs]e|copying|notice", re.IGNORECASE)
APACHE = re.compile(r"^License(-Expression)?: Apache", re.MULTILINE)
DOC = Path("/usr/share/doc")
COMMON_LICENCES = Path("/usr/share/common-licenses")
IMPORT_ALL = """
import importlib, pkgutil, sys
package = importlib.import_module(sys.argv[1])
for module in pkgutil.walk_packages(package.__path__, package.__name__ + "."):
    importlib.import_module(module.name)
"""
ETC = {
    "passwd": "root:x:0:0:root:/:/sbin/nologin\nnonroot:x:65532:65532:nonroot:/:/sbin/nologin\n",
    "group": "root:x:0:\nnonroot:x:65532:\n",
    "nsswitch.conf": "hosts: files dns\n",
}


def main(root: Path, package: str) -> None:
    """Fill `root`. Any error ends the build."""
    # Also what is imported only when it is needed; -S, as the image runs it.
    subprocess.run([sys.executable, "-S", "-B", "-P", "-s", "-c", IMPORT_ALL, package], check=True)
    prefix = root / "usr/local"
    library = prefix / "lib" / f"python{sys.version_info.major}.{sys.version_info.minor}"
    interpreter = prefix / "bin" / "python3"
    interpreter.parent.mkdir(parents=True)
    shutil.copy(Path(sys.executable).resolve(), interpreter)
    shutil.copytree(sysconfig.get_path("stdlib"), library, ignore=unused_of_library)
    shutil.rmtree(root / "app/bin", ignore_errors=True)  # console scripts
    prune(root / "app")
    notices_of_packages(root / "app", Path("LICENSE"))
    copied = [*shared_libraries([interpreter, *root.rglob("*.so"), *root.rglob("*.so.*")], within=root)]
    notices_of_system([Path(sys.executable).resolve(), *copied], root)
    for file in copied:
        target = root / ("usr/lib" if not file.name.startswith("ld-linux") else file.parent.relative_to("/"))
        target.mkdir(parents=True, exist_ok=True)
        shutil.copy(file, target / file.name)
    for name, text in ETC.items():
        (root / "etc").mkdir(exist_ok=True)
        (root / "etc" / name).write_text(text)
    (root / "tmp").mkdir()
    (root / "tmp").chmod(0o1777)
    for folder in (library, root / "app"):
        unchecked = py_compile.PycInvalidationMode.UNCHECKED_HASH
        if not compileall.compile_dir(folder, maxlevels=50, quiet=1, stripdir=root, invalidation_mode=unchecked):
            raise SystemExit(f"not everything in {folder} compiles")
    for path in root.rglob("*"):
        if path != root / "tmp" and not path.is_symlink():  # whatever umask the checkout or the build had
            path.chmod(0o755 if path.is_dir() or path.stat().st_mode & 0o100 else 0o644)


def unused_of_library(folder: str, names: list[str]) -> set[str]:
    """What of one folder of the standard library stays behind."""
    if Path(folder).name == "lib-dynload":
        return {name for name in names if name.startswith(UNUSED_EXTENSIONS)}
    return {name for name in names if name in UNUSED_MODULES or name.startswith("config-")}


def prune(folder: Path) -> None:
    """Delete what of installed packages is never run."""
    for pattern in UNUSED_FILES:
        for found in list(folder.rglob(pattern)):
            if found.is_dir():
                shutil.rmtree(found)
            else:
                found.unlink(missing_ok=True)


def shared_libraries(programs: list[Path], within: Path) -> Iterator[Path]:
    """The system's libraries that `programs` load, each once; those that packages bring along lie `within` already."""
    listing = subprocess.run(["ldd", *programs], capture_output=True, text=True, check=True).stdout
    found: dict[str, Path] = {}
    for line in listing.splitlines():
        name, arrow, where = line.strip().partition(" => ")
        path = Path((where if arrow else name).partition(" (")[0])
        if "not found" in line:
            raise SystemExit(f"{name}: no such library here, but a package needs it")
        if path.is_absolute() and path.suffix != ":" and not path.is_relative_to(within) and path.exists():
            found.setdefault(path.name, path)
    libc = next(path for name, path in found.items() if name.startswith("libc.so"))
    found.setdefault(LOADED_AT_RUN_TIME, libc.parent / LOADED_AT_RUN_TIME)
    yield from found.values()


def notices_of_packages(folder: Path, apache: Path) -> None:
    """Every installed package has its licence in `folder`. apache: the Apache License's text, for wheels that only name it."""
    for about in folder.glob("*.dist-info"):
        record = (about / "RECORD").read_text().splitlines() if (about / "RECORD").is_file() else []
        listed = [folder / line.partition(",")[0] for line in record]
        if any(LICENCE.search(file.name) and file.is_file() for file in [*listed, *about.rglob("*")]):
            continue
        metadata = (about / "METADATA").read_text(errors="replace").partition("\n\n")[0]
        if not APACHE.search(metadata):
            raise SystemExit(f"{about.name}: no licence text, and none that is known")
        shutil.copy(apache, about / "LICENSE")


def notices_of_system(files: list[Path], root: Path) -> None:
    """The system's notices of `files`: their Debian packages' copyright files, and the licences that these refer to. What is no
    package's is Python of its own build, whose licence is a file of the standard library."""
    owners, sources = owners_of(files), sources_of_packages()
    for file in files:
        if (package := owners.get(file)) is None:
            if not Path(sysconfig.get_path("stdlib"), "LICENSE.txt").is_file() or not file.is_relative_to(
                sys.base_prefix
            ):
                raise SystemExit(f"{file}: no package has it, so its notice is not known")
            continue
        # Where documentation is left out, so are links from one package's folder to that of another one of the same source.
        kin = [package, *(other for other, source in sources.items() if source == sources.get(package))]
        notice = next((found for one in kin if (found := DOC / one / "copyright").is_file()), None)
        if notice is None:
            raise SystemExit(f"{file}: its package {package} has no notice here")
        target = root / notice.relative_to("/")
        target.parent.mkdir(parents=True, exist_ok=True)
        shutil.copy(notice, target)
    if COMMON_LICENCES.is_dir():
        shutil.copytree(COMMON_LICENCES, root / COMMON_LICENCES.relative_to("/"), dirs_exist_ok=True)


def owners_of(files: list[Path]) -> dict[Path, str]:
    """The Debian package of each file that has one."""
    # Packages may name a file by the place it had before /lib became a link to /usr/lib.
    names = {str(name) for file in files for name in names_of(file)}
    try:
        listing = subprocess.run(["dpkg-query", "--search", *names], capture_output=True, text=True, check=False).stdout
    except FileNotFoundError:
        return {}
    owners: dict[str, str] = {}
    for line in listing.splitlines():
        packages, _, name = line.partition(": ")
        if not packages.startswith("diversion "):
            owners[name] = packages.partition(",")[0].partition(":")[0]
    found = ((file, owners.get(str(name))) for file in files for name in names_of(file))
    return {file: owner for file, owner in found if owner is not None}


def sources_of_packages() -> dict[str, str]:
    """The source package of each installed Debian package."""
    command = ["dpkg-query", "--show", "--showformat", "${Package} ${source:Package}\n"]
    try:
        listing = subprocess.run(command, capture_output=True, text=True, check=False).stdout
    except FileNotFoundError:
        return {}
    return dict(line.split() for line in listing.splitlines() if len(line.split()) == 2)


def names_of(file: Path) -> Iterator[Path]:
    """The file and what it links to, each below / and below /usr."""
    for real in (file, file.resolve()):
        bare = Path("/", *real.parts[2:]) if real.parts[1] == "usr" else real
        yield bare
        yield Path("/usr", *bare.parts[1:])


if __name__ == "__main__":
    main(Path(sys.argv[1]), sys.argv[2])
