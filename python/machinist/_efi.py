"""The variables of EFI firmware, in the file that OVMF keeps them in.

The format is EDK II's: a firmware volume with a store of authenticated variables, and behind it the
area of its fault tolerant writes.
"""

from __future__ import annotations

import struct
import uuid
import zlib
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

from machinist._errors import MachineError, RequestedAssertionFailed

if TYPE_CHECKING:
    from machinist._machine import Machine

_VOLUME = struct.Struct("<16s16sQ4sIHHHBB")
_BLOCKS = struct.Struct("<IIII")
_STORE = struct.Struct("<16sIBBHI")
_VARIABLE = struct.Struct("<HBBIQ16sIII16s")
_HEAD = _VOLUME.size + _BLOCKS.size
_BLOCK = 0x1000
_STORE_END = 0x40000
"""Where the variables end, in OVMF's layout with 4 MiB."""
_WORKING = 0x41000
_SPARE = 0x42000
_ALL = 2 * _SPARE
_FREE, _USED = 0xFFFF, 0x55AA
_LIVE = 0x3F
_FORMATTED, _HEALTHY = 0x5A, 0xFE


def _stored(text: str) -> uuid.UUID:
    """A GUID with its bytes in the order in which they are stored."""
    return uuid.UUID(bytes=uuid.UUID(text).bytes_le)


class EfiGuid:
    """Well-known GUIDs, with their bytes in the order in which they are stored."""

    gEdkiiVarErrorFlagGuid = _stored("04b37fe8-f6ae-480b-bdd5-37d98c5e89aa")
    gEfiAuthenticatedVariableGuid = _stored("aaf32c78-947b-439a-a180-2e144ec37792")
    gEfiCertDbGuid = _stored("d9bee56e-75dc-49d9-b4d7-b534210f637a")
    gEfiCustomModeEnableGuid = _stored("c076ec0c-7028-4399-a072-71ee5c448b9f")
    gEfiGlobalVariableGuid = _stored("8be4df61-93ca-11d2-aa0d-00e098032b8c")
    gEfiImageSecurityDatabaseGuid = _stored("d719b2cb-3d3a-4596-a3bc-dad00e67656f")
    gEfiIp4Config2ProtocolGuid = _stored("5b446ed1-e30b-4faa-871a-3654eca36080")
    gEfiIScsiInitiatorNameProtocolGuid = _stored("59324945-ec44-4c0d-b1cd-9db139df070c")
    gEfiMemoryTypeInformationGuid = _stored("4c19049f-4137-4dd3-9c10-8b97a83ffdfa")
    gEfiSecureBootEnableDisableGuid = _stored("f0a30bc7-af08-4556-99c4-001009c93a44")
    gEfiSystemNvDataFvGuid = _stored("fff12b8d-7696-4c8b-a985-2747075b4f50")
    gEfiVendorKeysNvGuid = _stored("9073e4e0-60ec-4b6e-9903-4c223c260f3c")
    gIScsiConfigGuid = _stored("4b47d616-a8d6-4552-9d44-ccad2e0f4cf9")
    gMicrosoftVendorGuid = _stored("77fa9abd-0359-4d32-bd60-28f4e78f784b")
    gMtcVendorGuid = _stored("eb704011-1402-11d3-8e77-00a0c969723b")
    mBmHardDriveBootVariableGuid = _stored("fab7e9e1-39dd-4f2b-8408-e20e906cb6de")


_KNOWN = {value: name for name, value in vars(EfiGuid).items() if isinstance(value, uuid.UUID)}


class EfiVariable:
    """A variable of the firmware."""

    class Flags:
        """What it is for."""

        NON_VOLATILE = 0x1
        BOOTSERVICE_ACCESS = 0x2
        RUNTIME_ACCESS = 0x4
        TIME_BASED_AUTHENTICATED_WRITE_ACCESS = 0x20

    class State:
        """How far its writing has come."""

        VAR_HEADER_VALID_ONLY = 0x7F
        VAR_ADDED = 0x3F

    def __init__(
        self,
        vendor_uuid: uuid.UUID | None = None,
        name: str | None = None,
        data: bytes | None = None,
        state: int | None = None,
        flags: int | None = None,
    ) -> None:
        """``vendor_uuid`` as people write it, or one of ``EfiGuid``."""
        vendor = vendor_uuid or uuid.UUID(int=0)
        self.vendorUUID = vendor if vendor in _KNOWN else uuid.UUID(bytes=vendor.bytes_le)
        """With its bytes in the order in which they are stored."""
        self.name = name or ""
        self.data = data or b""
        written = (None, self.State.VAR_ADDED, self.State.VAR_HEADER_VALID_ONLY)
        self.state = _LIVE if state in written else (state or 0) ^ 0xFF
        self.flags = flags or 0
        self.monotonicCount = 0
        self.timestamp = bytes(16)
        self.pubKeyIdx = 0

    @property
    def isDeleted(self) -> bool:
        """Whether it is there no more."""
        return not self.state & 0x2

    @property
    def vendor(self) -> str:
        """Whose it is, by a name that is known or as people write a GUID."""
        return _KNOWN.get(self.vendorUUID) or str(uuid.UUID(bytes_le=self.vendorUUID.bytes))

    def serialize(self) -> bytes:
        """As it is stored, up to where the next one begins."""
        name = self.name.encode("utf-16-le") + b"\0\0"
        head = _VARIABLE.pack(
            _USED,
            self.state,
            0,
            self.flags,
            self.monotonicCount,
            self.timestamp,
            self.pubKeyIdx,
            len(name),
            len(self.data),
            self.vendorUUID.bytes,
        )
        stored = head + name + self.data
        return stored + b"\xff" * (-len(stored) % 4)

    def print(self) -> None:
        """Print what it says."""
        print(f"{self.name} ({self.vendor}), flags 0x{self.flags:x}: {self.data.hex(' ')}")


class EfiVars:
    """All variables of a VM, which must be off."""

    def __init__(self, state_path: Path, machine: Machine | None = None) -> None:
        self.state_path = state_path
        self.machine = machine

    def read_content(self) -> dict[str, dict[str, EfiVariable]] | None:
        """By their vendors and names. ``None``: there is no file yet."""
        self._only_while_off()
        try:
            content = self.state_path.read_bytes()
        except FileNotFoundError:
            return None
        found: dict[str, dict[str, EfiVariable]] = {}
        for variable in _variables(content, *_store_of(content)):
            if not variable.isDeleted:
                found.setdefault(variable.vendor, {})[variable.name] = variable
        return found

    def create_empty(self) -> None:
        """Make a file without any."""
        self._only_while_off()
        try:
            with open(self.state_path, "xb") as file:
                file.write(_empty())
        except FileExistsError:
            raise RequestedAssertionFailed(f"there is a {self.state_path} already") from None

    def write(self, add: list[EfiVariable]) -> None:
        """Add variables, or replace those of the same vendors and names."""
        found = self.read_content()
        content = bytearray(_empty() if found is None else self.state_path.read_bytes())
        found = found or {}
        for variable in add:
            found.setdefault(variable.vendor, {})[variable.name] = variable
        stored = b"".join(one.serialize() for each in found.values() for one in each.values())
        begin, end = _store_of(content)
        if len(stored) > end - begin:
            raise RequestedAssertionFailed(
                f"{len(stored)} bytes of EFI variables do not go into {end - begin}"
            )
        content[begin:end] = stored.ljust(end - begin, b"\xff")
        self.state_path.write_bytes(content)

    def _only_while_off(self) -> None:
        if self.machine is not None and self.machine.booted:
            raise RequestedAssertionFailed(
                f"{self.machine.name} is running: its EFI variables are its firmware's now"
            )


def _empty() -> bytes:
    """A file without variables, in OVMF's layout with 4 MiB."""
    blocks = _BLOCKS.pack(_ALL // _BLOCK, _BLOCK, 0, 0)

    def volume(checksum: int) -> bytes:
        guid = EfiGuid.gEfiSystemNvDataFvGuid.bytes
        head = _VOLUME.pack(bytes(16), guid, _ALL, b"_FVH", 0x4FEFF, _HEAD, checksum, 0, 0, 2)
        return head + blocks

    checksum = -sum(struct.unpack(f"<{_HEAD // 2}H", volume(0))) & 0xFFFF
    store = _STORE.pack(
        EfiGuid.gEfiAuthenticatedVariableGuid.bytes,
        _STORE_END - _HEAD,
        _FORMATTED,
        _HEALTHY,
        0,
        0,
    )
    content = bytearray(b"\xff" * _ALL)
    content[: _HEAD + len(store)] = volume(checksum) + store
    # The checksum is that of a header which is not valid yet.
    guid = _stored("9e58292b-7c68-497d-a0ce-6500fd9f1b95").bytes
    size = struct.pack("<Q", _BLOCK - 0x20)
    crc = zlib.crc32(guid + b"\xff" * 8 + size)
    working = guid + struct.pack("<I", crc) + b"\xfe\xff\xff\xff" + size
    content[_WORKING : _WORKING + len(working)] = working
    return bytes(content)


def _store_of(content: bytes | bytearray) -> tuple[int, int]:
    """Where the variables begin, and where their area ends."""
    if len(content) < _VOLUME.size:
        raise MachineError("the file is too short for EFI variables")
    fields = _VOLUME.unpack_from(content)
    guid, magic, begin = fields[1], fields[3], fields[5]
    if magic != b"_FVH" or guid != EfiGuid.gEfiSystemNvDataFvGuid.bytes:
        raise MachineError("the file is no firmware volume with EFI variables")
    if len(content) < begin + _STORE.size:
        raise MachineError("the file is too short for EFI variables")
    guid, size, form, state, _, _ = _STORE.unpack_from(content, begin)
    if guid != EfiGuid.gEfiAuthenticatedVariableGuid.bytes:
        raise MachineError("the store of EFI variables is of another kind")
    if (form, state) != (_FORMATTED, _HEALTHY) or begin + size > len(content):
        raise MachineError("the store of EFI variables is not whole")
    return begin + _STORE.size, begin + size


def _variables(content: bytes, begin: int, end: int) -> Iterator[EfiVariable]:
    at = begin
    while at + _VARIABLE.size <= end:
        magic, state, _, flags, count, stamp, key, name_len, data_len, vendor = (
            _VARIABLE.unpack_from(content, at)
        )
        if magic == _FREE:
            return
        name_at = at + _VARIABLE.size
        data_at = name_at + name_len
        if magic != _USED or data_at + data_len > end:
            raise MachineError(f"there is no EFI variable at {at:#x}, where one should be")
        variable = EfiVariable(
            name=content[name_at:data_at].decode("utf-16-le", "replace").rstrip("\0"),
            data=content[data_at : data_at + data_len],
            flags=flags,
        )
        variable.vendorUUID = uuid.UUID(bytes=vendor)
        variable.state = state
        variable.monotonicCount, variable.timestamp, variable.pubKeyIdx = count, stamp, key
        yield variable
        at = data_at + data_len
        at += -at % 4
