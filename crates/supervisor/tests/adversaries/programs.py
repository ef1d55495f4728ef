"""Hostile and unlucky behaviours of runtimes, one function each; `programs.py NAME FIFO` runs one.

Each writes "ready" to the FIFO when it stands as its name says, and then stays. All are bounded: at
most some 150 processes, and nothing lives longer than LIFE_S even if nobody ends it. Every process
carries the variable QUELL_ADVERSARY in its environment (by which the test's checker, outside, finds
it), but for the one that scrubs it, which has the token for its name.
"""

import ctypes
import os
import resource
import signal
import subprocess
import sys
import threading
import time

LIFE_S = 60
LIBC = ctypes.CDLL(None, use_errno=True)
PR_SET_PDEATHSIG, PR_SET_NAME, PR_SET_CHILD_SUBREAPER = 1, 15, 36
CLONE_PARENT, CLONE_NEWPID, CLONE_NEWCGROUP = 0x8000, 0x20000000, 0x02000000
PTRACE_TRACEME, PTRACE_SEIZE = 0, 0x4206
SYS_CLONE, SYS_EXIT, SYS_PIDFD_GETFD = 56, 60, 438
READY = [sys.argv[2]]
UNIFIED = ("/sys/fs/cgroup/unified", "/sys/fs/cgroup")


def ready():
    """To the test, once."""
    if READY:
        with open(READY.pop(), "w") as fifo:
            fifo.write("ready\n")


def stay():
    """Not for ever: the net under a test that failed."""
    signal.alarm(LIFE_S)
    deadline = time.monotonic() + LIFE_S
    while time.monotonic() < deadline:
        time.sleep(1)
    os._exit(1)


def child(work=None):
    """Forks, and returns when the child stands: when its work is done, or it said so by `stand`."""
    ours, theirs = os.pipe()
    pid = os.fork()
    if pid == 0:
        os.close(ours)
        STANDING.append(theirs)
        try:
            if work:
                work()
            stand()
            stay()
        finally:
            os._exit(1)
    os.close(theirs)
    os.read(ours, 1)
    os.close(ours)
    return pid


STANDING = []


def stand():
    """In a child: it is where its parent wants it."""
    while STANDING:
        line = STANDING.pop()
        os.write(line, b".")
        os.close(line)


def plain():
    child()


def leader_exits():
    child(lambda: (os.setsid(), ready()))
    os._exit(0)


def double_fork():
    def middle():
        os.setsid()
        child()
        os._exit(0)
    os.waitpid(child(middle), 0)


def setsid_closefds():
    def alone():
        os.setsid()
        stand()
        os.closerange(0, 1024)
    child(alone)


def ignore_signals():
    for number in set(signal.valid_signals()) - {signal.SIGKILL, signal.SIGSTOP, signal.SIGALRM}:
        signal.signal(number, signal.SIG_IGN)
    child()


def block_signals():
    signal.pthread_sigmask(signal.SIG_BLOCK, signal.valid_signals())
    child()


def stopped():
    os.kill(child(), signal.SIGSTOP)
    ready()
    os.kill(os.getpid(), signal.SIGSTOP)


def own_groups():
    for _ in range(20):
        child(lambda: os.setpgid(0, 0))


def fork_relay():
    """Never the same pid for long: each forks the next and ends."""
    def hop():
        os.setsid()
        stand()
        for _ in range(2_000):
            if os.fork():
                os._exit(0)
            signal.alarm(LIFE_S)
    child(hop)


def fork_storm():
    """Forks as fast as it can, up to a bound, while it is being killed."""
    def storm():
        os.setsid()
        stand()
        for _ in range(120):
            child()
    child(storm)


def fork_in_thread():
    thread = threading.Thread(target=child, daemon=True)
    thread.start()
    thread.join()


def vfork_waits():
    """The child waits for a FIFO between vfork and exec; the parent waits for the child."""
    fifo = sys.argv[2] + ".never"
    os.mkfifo(fifo)
    actions = [(os.POSIX_SPAWN_OPEN, 0, fifo, os.O_RDONLY, 0)]
    child(lambda: (stand(), os.posix_spawn("/bin/true", ["true"], dict(os.environ), file_actions=actions)))
    time.sleep(0.05)


def traced():
    def tracee():
        LIBC.ptrace(PTRACE_TRACEME, 0, 0, 0)
        stand()
        os.kill(os.getpid(), signal.SIGSTOP)
    os.waitpid(child(tracee), os.WUNTRACED)


def tracer_keeps_zombie():
    victim = child()
    child(lambda: LIBC.ptrace(PTRACE_SEIZE, victim, 0, 0))


def pipe_holder():
    """Keeps the runtime's stdout open in a session of its own."""
    child(os.setsid)


def zombies():
    for _ in range(100):
        child(lambda: os._exit(0))


def other_user():
    if os.getuid() == 0:
        child(lambda: (os.setgroups([]), os.setgid(65534), os.setuid(65534)))


def huge_memory():
    def fill():
        block = bytearray(200 << 20)
        block[::4096] = b"x" * len(block[::4096])
        stand()
        stay()  # with the memory
    child(fill)


def locked_memory():
    LIBC.mlockall(3)
    child()


def many_threads():
    for _ in range(200):
        threading.Thread(target=stay, daemon=True).start()


def zombie_leader():
    """The main thread ends, another lives: the process looks dead and is not."""
    def leaderless():
        threading.Thread(target=lambda: (time.sleep(0.02), stand(), stay_quietly()), daemon=True).start()
        LIBC.syscall(SYS_EXIT, 0)
    child(leaderless)


def stay_quietly():
    time.sleep(LIFE_S)
    os._exit(1)


def clone_parent():
    """A child that is its parent's sibling."""
    if LIBC.syscall(SYS_CLONE, CLONE_PARENT | signal.SIGCHLD, 0, 0, 0, 0) == 0:
        stay()


def reparent_chain():
    def link(left):
        if left:
            child(lambda: link(left - 1))
            os._exit(0)
    child(lambda: link(8))


def nested_subreaper():
    def reaper():
        LIBC.prctl(PR_SET_CHILD_SUBREAPER, 1, 0, 0, 0)
        def middle():
            child()
            os._exit(0)
        os.waitpid(child(middle), 0)
        stand()
        os.kill(os.getpid(), signal.SIGSTOP)
    child(reaper)


def own_pid_namespace():
    def inside():
        if LIBC.unshare(CLONE_NEWPID):
            os._exit(1)
        child(child)
    child(inside)


def own_cgroup_namespace():
    child(lambda: LIBC.unshare(CLONE_NEWCGROUP))


def own_cgroup():
    with open("/proc/self/cgroup") as file:
        return next(line.split("::", 1)[1].strip() for line in file if line.startswith("0::"))


def own_leaf():
    """The folder of its own cgroup, if it has one and can write there."""
    own = own_cgroup()
    for top in UNIFIED if own != "/" else ():
        if os.path.exists(top + "/cgroup.procs") and os.access(top + own + "/cgroup.procs", os.W_OK):
            return top, own
    return None, own


def nested_cgroups():
    top, own = own_leaf()
    def deeper():
        path = top + own
        for _ in range(3):
            path += "/deeper"
            os.mkdir(path)
        with open(path + "/cgroup.procs", "w") as procs:
            procs.write("0")
    if top:
        child(deeper)


def frozen():
    """It freezes a group of its own."""
    top, own = own_leaf()
    if not top:
        return
    os.mkdir(top + own + "/frozen")
    pid = child()
    with open(top + own + "/frozen/cgroup.procs", "w") as procs:
        procs.write(str(pid))
    with open(top + own + "/frozen/cgroup.freeze", "w") as freeze:
        freeze.write("1")
    time.sleep(0.05)


def leave_the_leaf():
    """To the highest cgroup that it may write: root may write them all, others what was given to them."""
    top, own = own_leaf()
    names = own.strip("/").split("/") if top else ()
    for depth in range(len(names)):
        try:
            with open("/".join([top, *names[:depth], "cgroup.procs"]), "w") as procs:
                procs.write("0")
            return
        except OSError:
            pass


def cgroup_escape():
    """Writes itself into another cgroup."""
    if own_leaf()[0]:
        child(lambda: (os.setsid(), leave_the_leaf()))


def escapes_twice():
    """From its leaf, and from the helper, which is killed before it can end it."""
    child(lambda: (os.setsid(), leave_the_leaf()))
    os.kill(os.getppid(), signal.SIGKILL)


def scrubbed():
    """Another program, no environment, a name of its own (which is how the checker finds it)."""
    subprocess.Popen([os.environ["QUELL_ADVERSARY"], str(LIFE_S)], executable="/bin/sleep", env={}, start_new_session=True)


def false_name():
    child(lambda: (LIBC.prctl(PR_SET_NAME, b"kworker/0:1", 0, 0, 0)))


def dumps_core():
    resource.setrlimit(resource.RLIMIT_CORE, resource.getrlimit(resource.RLIMIT_CORE)[1:] * 2)
    child(lambda: (stand(), bytearray(50 << 20), os.abort()))
    child()


def exits_at_once():
    ready()
    os._exit(0)


def crashes():
    child()
    ready()
    os.kill(os.getpid(), signal.SIGSEGV)


def no_room_for_files():
    for _ in range(900):
        os.dup(2)
    child()


def deleted_folder():
    os.mkdir(sys.argv[2] + ".gone")
    def inside():
        os.chdir(sys.argv[2] + ".gone")
        os.rmdir(sys.argv[2] + ".gone")
    child(inside)


def idle_priority():
    child(lambda: (os.sched_setscheduler(0, os.SCHED_IDLE, os.sched_param(0))))


def busy_loops():
    def spin():
        signal.alarm(LIFE_S)
        stand()
        while True:
            pass
    for _ in range(4):
        child(spin)


def execs_for_ever():
    script = "i=0; while [ $i -lt 20000 ]; do /bin/true; i=$((i+1)); done"
    child(lambda: (os.setsid(), stand(), os.execvp("sh", ["sh", "-c", script])))


def dies_with_parent():
    child(lambda: (LIBC.prctl(PR_SET_PDEATHSIG, signal.SIGKILL, 0, 0, 0)))


def new_on_terminate():
    """A soft signal makes it start another."""
    signal.signal(signal.SIGTERM, lambda *_: child(os.setsid))


def deep_tree():
    def level(left):
        if left:
            child(lambda: level(left - 1))
            child(lambda: level(left - 1))
    child(lambda: level(5))


def floods_output():
    def flood():
        signal.alarm(LIFE_S)
        stand()
        while True:
            os.write(1, b"x" * 65536)
    child(flood)


def stops_its_helper():
    os.kill(os.getppid(), signal.SIGSTOP)
    child(os.setsid)


def kills_its_helper():
    """A child subreaper of the same user can be killed; PID 1 of a namespace cannot from inside."""
    child(os.setsid)
    os.kill(os.getppid(), signal.SIGKILL)


def dies_of_a_signal_without_a_name():
    """An orphan ends by a realtime signal, which not every library can tell of."""
    def middle():
        child(lambda: (stand(), os.kill(os.getpid(), 40)))
        os._exit(0)
    os.waitpid(child(middle), 0)
    child(os.setsid)


def stops_its_helper_for_ever():
    helper = os.getppid()
    def spin():
        os.setsid()
        signal.alarm(LIFE_S)
        stand()
        while True:
            os.kill(helper, signal.SIGSTOP)
    for _ in range(4):
        child(spin)


def starves_its_helper():
    """Of descriptors."""
    resource.prlimit(os.getppid(), resource.RLIMIT_NOFILE, (0, 0))
    child(os.setsid)


def forges_the_last_word():
    """Speaks on its helper's line and kills it, as root can that is not in a namespace."""
    pidfd = os.pidfd_open(os.getppid())
    line = LIBC.syscall(SYS_PIDFD_GETFD, pidfd, 0, 0)
    child(os.setsid)
    if line >= 0:
        os.write(line, b"c\0")
        os.kill(os.getppid(), signal.SIGKILL)


def fuse_d_state():
    """Asks a disk that never answers, if the test has one."""
    child(lambda: (stand(), os.stat(sys.argv[3])) if len(sys.argv) > 3 else None)


def leaves_by_the_old_proc():
    """Uncovers the machine's /proc below its own and looks for a way out."""
    LIBC.umount2(b"/proc", 2)
    try:
        outside = os.open("/proc/1/ns/pid", os.O_RDONLY)
        LIBC.setns(outside, 0)
    except OSError:
        pass
    child(os.setsid)


def kills_everybody():
    """Only ever run inside a namespace of its own: looked at twice."""
    if os.getppid() != 1 or os.getpid() > 20:
        raise SystemExit("not inside")
    child()
    os.kill(-1, signal.SIGKILL)


def kills_by_a_cgroup():
    """Only ever run inside a namespace: everything in the node's cgroups, and the node if it is in one."""
    child()
    own = own_cgroup()
    names = own.strip("/").split("/")
    for top in UNIFIED:
        for depth, name in enumerate(names, 1):
            try:
                if name.startswith("quell-"):
                    with open("/".join([top, *names[:depth], "cgroup.kill"]), "w") as kill:
                        kill.write("1")
            except OSError:
                pass


if __name__ == "__main__":
    signal.alarm(LIFE_S)
    globals()[sys.argv[1]]()
    ready()
    stay()
