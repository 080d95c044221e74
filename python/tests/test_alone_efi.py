"""Variables of EFI firmware, and the driver's configuration."""

from __future__ import annotations

import contextlib
import io
import json
import struct
import tempfile
import unittest
import uuid
from datetime import timedelta
from pathlib import Path
from types import SimpleNamespace
from typing import Any

from machinist import MachineError, RequestedAssertionFailed
from test_driver.driver import load_driver_configuration
from test_driver.efi import EfiGuid, EfiVariable, EfiVars

VENDOR = uuid.UUID("a19f72f8-b554-4bd7-a0c2-2762bd854691")
Flags = EfiVariable.Flags


class InDirectory(unittest.TestCase):
    def setUp(self) -> None:
        directory = tempfile.TemporaryDirectory()
        self.addCleanup(directory.cleanup)
        self.file = Path(directory.name) / "file"


class Variables(InDirectory):
    def setUp(self) -> None:
        super().setUp()
        self.machine: Any = SimpleNamespace(booted=False, name="web")
        self.vars = EfiVars(self.file, self.machine)

    def demo(self, data: bytes = b"*") -> EfiVariable:
        flags = Flags.NON_VOLATILE | Flags.BOOTSERVICE_ACCESS | Flags.RUNTIME_ACCESS
        return EfiVariable(vendor_uuid=VENDOR, name="Demo", data=data, flags=flags)

    def test_an_empty_file_is_that_of_edk2(self) -> None:
        self.assertIsNone(self.vars.read_content())
        self.vars.create_empty()
        content = self.file.read_bytes()
        # The header's checksum and the working block are those of OvmfPkg/VarStore.fdf.inc.
        self.assertEqual(len(content), 528 * 1024)
        self.assertEqual(content[0x32:0x34].hex(), "afb8")
        working = "2b29589e687c7d49a0ce6500fd9f1b952caf2c64feffffffe00f000000000000"
        self.assertEqual(content[0x41000:0x41020].hex(), working)
        self.assertEqual(self.vars.read_content(), {})
        with self.assertRaisesRegex(RequestedAssertionFailed, "already"):
            self.vars.create_empty()

    def test_what_is_written_is_read(self) -> None:
        boot = EfiVariable(EfiGuid.gEfiGlobalVariableGuid, "BootNext", b"\1\0", flags=7)
        self.vars.write([self.demo(), boot])
        self.vars.write([self.demo(b"+++++")])
        found = self.vars.read_content()
        assert found is not None
        self.assertEqual([*found], [str(VENDOR), "gEfiGlobalVariableGuid"])
        demo = found[str(VENDOR)]["Demo"]
        self.assertEqual((demo.name, demo.data, demo.flags), ("Demo", b"+++++", 7))
        self.assertEqual(demo.vendorUUID, uuid.UUID(bytes=VENDOR.bytes_le))
        self.assertFalse(demo.isDeleted)
        again = found["gEfiGlobalVariableGuid"]["BootNext"]
        self.assertEqual((again.vendorUUID, again.data), (EfiGuid.gEfiGlobalVariableGuid, b"\1\0"))
        with contextlib.redirect_stdout(io.StringIO()) as said:
            demo.print()
        self.assertIn("Demo", said.getvalue())

    def test_as_firmware_stores_it(self) -> None:
        self.vars.write([self.demo()])
        stored = self.file.read_bytes()[72 + 28 :][:76]
        # Used, added, flags, count, time, key, lengths of "Demo" with its end and of the data.
        head = struct.pack("<HBBIQ16sIII", 0x55AA, 0x3F, 0, 7, 0, bytes(16), 0, 10, 1)
        text = "Demo\0".encode("utf-16-le")
        self.assertEqual(stored, head + VENDOR.bytes_le + text + b"*" + b"\xff" * 5)

    def test_what_is_deleted(self) -> None:
        self.vars.write([self.demo()])
        content = bytearray(self.file.read_bytes())
        content[72 + 28 + 2] &= 0xFD
        self.file.write_bytes(content)
        self.assertEqual(self.vars.read_content(), {})

    def test_too_much(self) -> None:
        self.vars.write([])
        before = self.file.read_bytes()
        with self.assertRaisesRegex(RequestedAssertionFailed, "do not go into"):
            self.vars.write([self.demo(bytes(1 << 18))])
        self.assertEqual(self.file.read_bytes(), before)

    def test_something_else(self) -> None:
        self.vars.create_empty()
        whole = self.file.read_bytes()
        broken = whole[:100] + b"\0" * 60 + whole[160:]
        for content in (b"", bytes(100), whole[:80], whole[:200], broken):
            self.file.write_bytes(content)
            with self.subTest(content[:8]), self.assertRaises(MachineError):
                self.vars.read_content()

    def test_only_while_it_is_off(self) -> None:
        self.machine.booted = True
        for do in (self.vars.read_content, self.vars.create_empty, lambda: self.vars.write([])):
            with self.assertRaisesRegex(RequestedAssertionFailed, "web is running"):
                do()
        self.assertFalse(self.file.exists())


class Configuration(InDirectory):
    WHOLE: dict[str, Any] = {
        "vms": {"a": {"name": "a", "start_script": "/bin/run-a-vm"}},
        "containers": {
            "b": {
                "name": "b",
                "start_script": "/bin/run-b-nspawn",
                "display_targets": [{"backend": "x11"}],
            }
        },
        "vlans": [1, 2],
        "global_timeout": 3600,
        "enable_ssh_backdoor": True,
        "test_script": "/test.py",
    }

    def test_is_read(self) -> None:
        self.file.write_text(json.dumps(self.WHOLE))
        found = load_driver_configuration(str(self.file))
        self.assertEqual(found.vms["a"].start_script, Path("/bin/run-a-vm"))
        self.assertEqual(found.containers["b"].display_targets, [{"backend": "x11"}])
        self.assertEqual((found.vlans, found.enable_ssh_backdoor), ([1, 2], True))
        self.assertEqual(found.global_timeout, timedelta(hours=1))
        self.assertEqual(found.test_script, Path("/test.py"))

    def test_what_is_wrong(self) -> None:
        for wrong, said in (
            ({"vms": {"a": {"name": "a"}}}, "has no 'start_script'"),
            ({"vms": 5}, "is no driver configuration"),
        ):
            self.file.write_text(json.dumps({**self.WHOLE, **wrong}))
            with self.assertRaisesRegex(ValueError, said):
                load_driver_configuration(self.file)


if __name__ == "__main__":
    unittest.main()
