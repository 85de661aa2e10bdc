"""Puts what the library and the notebooks read from `data/` into the wheel, as `favor_lab/data`.

Everything else about the package is in pyproject.toml. In a checkout, also in an editable installation, the files are
read where they are: see `favor_lab.files.data_path`.
"""

from pathlib import Path

from setuptools import setup
from setuptools.command.build_py import build_py

SHIPPED = (  # the pocket policy, and the measured results that notebooks compare with
    "pocket-qwen2-vl/*.*",
    "results/*.json",
    "results/benchmarks/*.json",
    "results/spine/*.json",
    "results/study/**/*.*",
)


class BuildWithData(build_py):
    def run(self) -> None:
        super().run()
        if not self.editable_mode:
            for target, source in self.data_paths().items():
                self.mkpath(str(Path(target).parent))
                self.copy_file(source, target)

    def data_paths(self) -> dict[str, str]:
        """Path in the build -> path in the checkout."""
        paths = [path for pattern in SHIPPED for path in sorted(Path("data").glob(pattern)) if path.is_file()]
        return {str(Path(self.build_lib, "favor_lab", path)): str(path) for path in paths}

    def get_outputs(self, include_bytecode: bool = True) -> list[str]:
        return [*super().get_outputs(include_bytecode), *({} if self.editable_mode else self.data_paths())]


setup(cmdclass={"build_py": BuildWithData})
