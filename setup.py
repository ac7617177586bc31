"""Everything that pyproject.toml can't say: where the four scripts lie in a wheel."""

from pathlib import Path

from setuptools import setup
from setuptools.command.build_py import build_py

SCRIPTS = ("train", "generate", "calc_metrics", "dataset_tool")


class BuildWithScripts(build_py):
    """Puts the scripts into styleloom.scripts, so that no module called `train` is among other people's."""

    def find_package_modules(self, package: str, package_dir: str) -> list[tuple[str, str, str]]:
        """(package, module, file) of each module of `package`."""
        found = super().find_package_modules(package, package_dir)
        if package == "styleloom.scripts":
            found += [(package, name, str(Path(__file__).parent / f"{name}.py")) for name in SCRIPTS]
        return found


setup(cmdclass={"build_py": BuildWithScripts})
