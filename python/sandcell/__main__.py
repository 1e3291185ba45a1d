"""`python -m sandcell`: the program that came with the package."""

import os
import sys
import sysconfig


def program() -> str:
    """Where the installation has put it: beside the scripts of this environment, or of the user."""
    schemes = [sysconfig.get_default_scheme(), sysconfig.get_preferred_scheme("user")]
    places = [os.path.dirname(sys.executable), *(sysconfig.get_path("scripts", scheme) for scheme in schemes)]
    places += os.environ.get("PATH", os.defpath).split(os.pathsep)
    for place in places:
        found = os.path.join(place, "sandcell")
        if os.access(found, os.X_OK) and os.path.isfile(found):
            return found
    sys.exit("sandcell: the program is not beside this Python; install the package again")


if __name__ == "__main__":
    os.execv(program(), ["sandcell", *sys.argv[1:]])
