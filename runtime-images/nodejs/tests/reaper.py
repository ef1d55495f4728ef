"""Stands for the node's helper: starts a program, inherits and collects what that leaves behind."""

import ctypes
import os
import sys

PR_SET_PDEATHSIG, PR_SET_CHILD_SUBREAPER, SIGKILL = 1, 36, 9

libc = ctypes.CDLL(None)
libc.prctl(PR_SET_CHILD_SUBREAPER, 1, 0, 0, 0)
child = os.fork()
if child == 0:
    libc.prctl(PR_SET_PDEATHSIG, SIGKILL, 0, 0, 0)
    os.execv(sys.argv[1], sys.argv[1:])
print("pid %d" % child, flush=True)
status = None
while True:
    try:
        pid, told = os.wait()
    except ChildProcessError:
        break
    if pid == child:
        status = told
        break
os._exit(os.waitstatus_to_exitcode(status) & 0xFF)
