"""Entry of the Python runtime image: the node runs `python3 -u bootstrap.py`."""

if __name__ == "__main__":
    import sys

    from quell_runtime.start import main

    # The package is loaded and finds its own parts by itself. Without this, a
    # file of the user named like one of ours would be shadowed by our folder.
    del sys.path[0]
    main()
