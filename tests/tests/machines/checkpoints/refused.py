"""A lab with a container has no checkpoints, and nothing happens to it."""

box.succeed("echo kept > /tmp/kept")
try:
    lab.checkpoint("never")
except MachineError as error:
    t.assertIn("box: it is a container", str(error))
    t.assertIn("checkpoint", str(error))
else:
    raise AssertionError("a container was saved")
t.assertEqual(lab.checkpoints, [])
t.assertEqual(box.succeed("cat /tmp/kept"), "kept\n")
