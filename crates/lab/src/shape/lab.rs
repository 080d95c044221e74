//! The keys of the lab file.

use super::syntaxes::{
    CDI, DEVICE, ENV_NAME, GUEST_PATH, IMAGE_NAME, IMAGE_REF, MACHINE_NAME, MODE, PACKAGE, PUBLISH,
    READY, REGEX, SIZE, SOURCE, VLAN_ID, VOLUME_TEXT, WAIT,
};
use super::{Key, Keys, Shape};
use crate::types::Checkpoint;

const fn key(name: &'static str, shape: Shape, doc: &'static str) -> Key {
    Key {
        name,
        doc,
        shape,
        required: false,
    }
}

const fn required(name: &'static str, shape: Shape, doc: &'static str) -> Key {
    Key {
        name,
        doc,
        shape,
        required: true,
    }
}

/// The whole file.
pub(crate) static LAB: Keys = Keys {
    what: "a lab file",
    keys: &[
        key(
            "defaults",
            Shape::Table(&DEFAULTS),
            "What machines and tests have that do not say.",
        ),
        key(
            "image",
            Shape::Map(&IMAGE_NAME, &Shape::Table(&IMAGE)),
            "Images with names of their own.",
        ),
        key(
            "machine",
            Shape::Map(&MACHINE_NAME, &Shape::Table(&MACHINE)),
            "The machines, by name.",
        ),
        key("test", Shape::List(0, &Shape::Table(&TEST)), "The tests."),
        key(
            "vlan",
            Shape::Map(&VLAN_ID, &Shape::Table(&VLAN)),
            "The VLANs, by number.",
        ),
    ],
    later: &[],
};

static DEFAULTS: Keys = Keys {
    what: "`defaults`",
    keys: &[
        key("checkpoint", CHECKPOINT, "As in a machine."),
        key("cpus", CPUS, "As in a machine."),
        key(
            "env",
            Shape::Map(&ENV_NAME, &Shape::AnyText),
            "As in a machine; the two are joined.",
        ),
        key("image", Shape::Syntax(&IMAGE_REF), "As in a machine."),
        key("kind", KIND, "As in a machine."),
        key("memory", Shape::Syntax(&SIZE), "As in a machine."),
        key("ready", Shape::Syntax(&READY), "As in a machine."),
        key("snapshot", Shape::Bool, "As in a machine."),
        key("timeout", Shape::Duration, "As in a test."),
        key("vlans", VLANS, "As in a machine."),
    ],
    later: &[],
};

static IMAGE: Keys = Keys {
    what: "an image",
    keys: &[
        key(
            "files",
            Shape::Map(&GUEST_PATH, &FILE),
            "Files to add: path to text, or to { from, text, mode }.",
        ),
        key(
            "packages",
            Shape::List(0, &Shape::Syntax(&PACKAGE)),
            "Debian packages to add.",
        ),
        required(
            "source",
            Shape::Syntax(&SOURCE),
            "Where it begins: `debian:SUITE`, `host`, `dir:PATH` or `tar:PATH`.",
        ),
    ],
    later: &[],
};

static MACHINE: Keys = Keys {
    what: "a machine",
    keys: &[
        key(
            "cdi",
            Shape::List(0, &Shape::Syntax(&CDI)),
            "Devices of the Container Device Interface, for a container: `vendor.com/class=name`.",
        ),
        key(
            "checkpoint",
            CHECKPOINT,
            "What a checkpoint of the lab makes of it, if it is a container: `refuse`, or `restart` with its files. Default: `refuse`.",
        ),
        key(
            "count",
            Shape::Integer(1, 250),
            "So many of these: `app-1`, `app-2`, ...",
        ),
        key("cpus", CPUS, "Processors. Default: 1."),
        key(
            "devices",
            Shape::List(0, &Shape::Syntax(&DEVICE)),
            "Device nodes of the host, for a container.",
        ),
        key(
            "disks",
            Shape::List(0, &Shape::Table(&DISK)),
            "Disks, for a VM: `/dev/vdb` and on.",
        ),
        key(
            "env",
            Shape::Map(&ENV_NAME, &Shape::AnyText),
            "Environment of the commands that steps and scripts run.",
        ),
        key(
            "files",
            Shape::Map(&GUEST_PATH, &FILE),
            "Files to add to the image, as in an image.",
        ),
        key(
            "gpu",
            Shape::Choice(&["nvidia"]),
            "The host's graphics processors of this vendor, for a container.",
        ),
        key(
            "image",
            Shape::Syntax(&IMAGE_REF),
            "A source, or the name of an image. Needed, unless `defaults` has one.",
        ),
        key(
            "kind",
            KIND,
            "`vm`, `container`, or `auto`: a container unless only a VM will do. Default: `auto`.",
        ),
        key("memory", Shape::Syntax(&SIZE), "Memory. Default: 1G."),
        key(
            "packages",
            Shape::List(0, &Shape::Syntax(&PACKAGE)),
            "Debian packages to add to the image.",
        ),
        key(
            "publish",
            Shape::List(0, &Shape::Syntax(&PUBLISH)),
            "Ports of the host for ports of the machine: `8080:80`.",
        ),
        key(
            "ready",
            Shape::Syntax(&READY),
            "When it counts as ready, and when the snapshot of a VM is made: `agent`, `system`, `unit:NAME` or `command:SHELL`. Default: `system`.",
        ),
        key(
            "snapshot",
            Shape::Bool,
            "Whether it may be restored from a snapshot instead of booting, if it is a VM. Default: true.",
        ),
        key(
            "vlans",
            VLANS,
            "The VLANs it hangs on: the first is `eth1`. Default: [1].",
        ),
        key(
            "volumes",
            Shape::List(0, &VOLUME),
            "Directories and files of the host.",
        ),
    ],
    later: &["display", "kernel"],
};

static VLAN: Keys = Keys {
    what: "a VLAN",
    keys: &[],
    later: &["capture", "condition"],
};

static DISK: Keys = Keys {
    what: "a disk",
    keys: &[
        key(
            "path",
            Shape::Text,
            "A raw image of the host; what is written stays.",
        ),
        key(
            "read_only",
            Shape::Bool,
            "With `path`: the machine cannot write. Default: false.",
        ),
        key(
            "size",
            Shape::Syntax(&SIZE),
            "An empty disk of this size, gone with the machine.",
        ),
    ],
    later: &[],
};

static VOLUME_KEYS: Keys = Keys {
    what: "a volume",
    keys: &[
        required(
            "source",
            Shape::Text,
            "On the host; relative to the lab file.",
        ),
        required(
            "target",
            Shape::Syntax(&GUEST_PATH),
            "In the machine, absolute.",
        ),
        key(
            "writable",
            Shape::Bool,
            "Whether the machine may write. Default: false.",
        ),
    ],
    later: &[],
};

static FILE_KEYS: Keys = Keys {
    what: "a file",
    keys: &[
        key(
            "from",
            Shape::Text,
            "A file of the host; relative to the lab file.",
        ),
        key(
            "mode",
            Shape::Syntax(&MODE),
            "Permission bits in octal. Default: those of `from`, else 0644.",
        ),
        key("text", Shape::AnyText, "What is in it."),
    ],
    later: &[],
};

static TEST: Keys = Keys {
    what: "a test",
    keys: &[
        key(
            "machines",
            Shape::List(1, &Shape::Text),
            "The machines it needs. Default: all.",
        ),
        required("name", Shape::Text, "Its name, unique in the lab."),
        key(
            "script",
            Shape::Text,
            "A Python script; relative to the lab file.",
        ),
        key(
            "steps",
            Shape::List(1, &Shape::Table(&STEP)),
            "What it does, step by step.",
        ),
        key("tags", Shape::List(0, &Shape::Text), "For filters."),
        key(
            "timeout",
            Shape::Duration,
            "How long it may take, the start of machines included. Default: 10m.",
        ),
    ],
    later: &[],
};

static STEP: Keys = Keys {
    what: "a step",
    keys: &[
        key(
            "copy_in",
            Shape::Text,
            "Copies this file or tree of the host to `to` in the machine.",
        ),
        key(
            "copy_out",
            Shape::Syntax(&GUEST_PATH),
            "Copies this file or tree of the machine to `to` on the host.",
        ),
        required("machine", Shape::Text, "Where it happens."),
        key(
            "run",
            Shape::Either(&[Shape::Text, Shape::List(1, &Shape::AnyText)]),
            "Runs this: a string by a shell, a list as program and arguments.",
        ),
        key(
            "status",
            Shape::Integer(0, 255),
            "With `run`: the exit status it must have. Default: 0.",
        ),
        key(
            "stderr",
            Shape::Table(&EXPECT),
            "With `run`: what must be true of standard error.",
        ),
        key(
            "stdout",
            Shape::Table(&EXPECT),
            "With `run`: what must be true of standard output.",
        ),
        key(
            "timeout",
            Shape::Duration,
            "How long it may take. Default: as long as the test.",
        ),
        key(
            "to",
            Shape::Text,
            "With `copy_in` and `copy_out`: where to.",
        ),
        key(
            "user",
            Shape::Text,
            "With `run`: who runs it. Default: root.",
        ),
        key(
            "wait",
            Shape::Syntax(&WAIT),
            "Waits for this: `port:80`, `unit:NAME`, `file:/PATH`, `socket:/PATH`, `journal:REGEX`, `console:REGEX` or `ready`.",
        ),
    ],
    later: &[],
};

static EXPECT: Keys = Keys {
    what: "an expectation",
    keys: &[
        key("contains", Shape::AnyText, "It has this somewhere."),
        key(
            "equals",
            Shape::AnyText,
            "It is this; line ends at the end do not count.",
        ),
        key(
            "matches",
            Shape::Syntax(&REGEX),
            "This regular expression matches somewhere.",
        ),
    ],
    later: &[],
};

const CPUS: Shape = Shape::Integer(1, 256);
const CHECKPOINT: Shape = Shape::Choice(Checkpoint::WORDS);
const KIND: Shape = Shape::Choice(&["auto", "container", "vm"]);
const VLANS: Shape = Shape::List(0, &Shape::Integer(1, 254));
const FILE: Shape = Shape::Either(&[Shape::AnyText, Shape::Table(&FILE_KEYS)]);
const VOLUME: Shape = Shape::Either(&[Shape::Syntax(&VOLUME_TEXT), Shape::Table(&VOLUME_KEYS)]);
