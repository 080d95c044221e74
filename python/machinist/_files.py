"""Files of a machine."""

from __future__ import annotations

import os
import shutil
import tempfile
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path, PurePosixPath

from machinist._commands import Commands


class Files(Commands):
    """Copying, both ways."""

    def copy_from_host(self, source: str | os.PathLike[str], target: str) -> None:
        """Copy a file or a tree of the host into the machine, with its permissions.

        ``target`` is where it will be, unless that is a directory: then it will be in there under
        its own name. Directories above are made. Symbolic links are copied as links; in a NixOS
        test as what they lead to, as the NixOS driver does: a store has many.
        """
        host = os.path.abspath(source)
        guest = PurePosixPath(target)
        if self.run(["test", "-d", guest]).status == 0:
            guest /= os.path.basename(host)
        if not self._driver.job:
            self._ask("copy_in", host=host, guest=str(guest))
            return
        with _without_links(host) as plain:
            self._ask("copy_in", host=plain, guest=str(guest))

    def copy_from_host_via_shell(self, source: str | os.PathLike[str], target: str) -> None:
        """Copy what a file of the host says into a file of the machine, by its shell.

        The shell reads ``target``. ``copy_from_host`` is better in every other way.
        """
        with open(source, "rb") as file:
            content = file.read()
        self.run(f"mkdir -p $(dirname {target})", check=True)
        self.run(f"cat > {target}", input=content, check=True)

    def copy_from_machine(self, source: str, target_dir: str = "") -> None:
        """Copy a file or a tree out of the machine.

        It goes to ``target_dir`` under the output directory, with the name that it has in the
        machine. Symbolic links of the machine are copied as links, and never followed.
        """
        host = self._driver.out_dir / target_dir / Path(source).name
        host.parent.mkdir(parents=True, exist_ok=True)
        self._ask("copy_out", guest=str(source), host=os.path.abspath(host))

    def copy_from_vm(self, source: str, target_dir: str = "") -> None:
        """The old name of ``copy_from_machine``."""
        warnings.warn(
            "copy_from_vm() is called copy_from_machine() now", DeprecationWarning, stacklevel=2
        )
        self.copy_from_machine(source, target_dir)


@contextmanager
def _without_links(host: str) -> Iterator[str]:
    """A path of what ``host`` is, with no links in it."""
    plain = os.path.realpath(host)
    names = ((at, name) for at, *lists in os.walk(plain) for name in (*lists[0], *lists[1]))
    if not any(os.path.islink(os.path.join(at, name)) for at, name in names):
        yield plain
        return
    with tempfile.TemporaryDirectory(prefix="machinist-copy-") as directory:
        copy = os.path.join(directory, "tree")
        shutil.copytree(plain, copy)
        yield copy
