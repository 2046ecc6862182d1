"""What scripts/cluster says when something is in its way."""

import sys

NEEDS = ("Network namespaces need root, or a kernel that lets users make them (sysctl user.max_user_namespaces, "
         "kernel.unprivileged_userns_clone, kernel.apparmor_restrict_unprivileged_userns)")


class ClusterError(Exception):
    """What the user can do something about."""


def complain(error):
    print(f"scripts/cluster: {error}", file=sys.stderr, flush=True)
