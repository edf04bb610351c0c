"""Ground that every room stands on: types, keys, ranges, files, console, processes."""
