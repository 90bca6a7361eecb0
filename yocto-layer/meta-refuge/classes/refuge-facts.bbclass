# What board/NAME/board.toml and board/NAME/genimage.cfg say, for the configuration and for recipes: read by scripts/board.py of the
# checkout, which every way of making an image of the box uses. REFUGE_BOARD is NAME; the distribution sets it.

# The board's data, or None where the machine is none of ours. Whoever asks is parsed anew when the data changes.
def refuge_board(d):
    import importlib.util

    root, name = d.getVar("REFUGE_ROOT"), d.getVar("REFUGE_BOARD")
    if not name:
        return None
    program = os.path.join(root, "scripts", "board.py")
    for file in (program, *(os.path.join(root, "board", name, file) for file in ("board.toml", "genimage.cfg"))):
        bb.parse.mark_dependency(d, file)
    try:
        # Python 3.11; the build tools of the release have a later one.
        import tomllib
    except ImportError:
        bb.fatal("meta-refuge reads board.toml with Python 3.11 or later: install it, or the release's buildtools")
    spec = importlib.util.spec_from_file_location("refuge_board_data", program)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module.Board(name, root)

# A fact of board.toml; an empty list where it, or the board, is not there.
def refuge_fact(d, key):
    board = refuge_board(d)
    return board.fact(key) if board else []

# Files that follow from the data (scripts/board.py lists them), into the folder of a task.
def refuge_write(d, folder, *names):
    board = refuge_board(d)
    bb.utils.mkdirhier(folder)
    for name in names:
        with open(os.path.join(folder, name), "wb") as file:
            file.write(board.file(name))
