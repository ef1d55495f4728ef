"""Entry of the fork server: the node runs `python3 -u fork_server.py` with a socket for its standard input."""

if __name__ == "__main__":
    import sys

    from quell_runtime.template import main

    # As in bootstrap.py: a file of the user named like one of ours is not shadowed.
    del sys.path[0]
    main()
