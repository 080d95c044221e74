"""A lab with a container that says nothing has no checkpoints, and nothing happens to it."""

box.succeed("true")
other.succeed("echo kept > /tmp/kept")
try:
    lab.checkpoint("never")
except MachineError as error:
    t.assertIn("other: it is a container", str(error))
    t.assertIn("restart", str(error))
    t.assertNotIn("box", str(error))
else:
    raise AssertionError("a container was saved")
t.assertEqual(lab.checkpoints, [])
t.assertEqual(other.succeed("cat /tmp/kept"), "kept\n")
