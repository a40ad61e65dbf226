"""Search spaces that come with raynas: one file each, with SPACE and supernet()."""
