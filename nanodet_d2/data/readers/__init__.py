"""Readers of annotations: a file per layout, all of which give the content of a COCO file."""
