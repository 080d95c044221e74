import os

assert machines == [], machines
with subtest("the output directory is there"):
    with open(os.path.join(os.environ["out"], "written"), "w") as file:
        file.write("by machinist")
