"""pytest in a lab that is there."""

import os
import subprocess
import time

start_all()
environment = {
    **os.environ,
    "PYTHONPATH": os.environ["PACKAGES"],
    "PYTEST_PLUGINS": "machinist.pytest_plugin",
}
words = [os.environ["PYTEST"], "-m", "pytest", "-p", "no:cacheprovider", "test_module.py"]
began = time.monotonic()
ran = subprocess.run(words, env=environment, stdout=subprocess.PIPE, text=True)
print(ran.stdout)
print(f"pytest: {time.monotonic() - began:.1f} s")
t.assertEqual(ran.returncode, 0)
t.assertIn("7 passed, 3 xfailed", ran.stdout)
# The lab goes on as its module found it, but for what the module's own fixture did.
t.assertEqual(lab.checkpoints, [])
t.assertEqual(vm_1.succeed("cat /tmp/state"), "fresh\n")
