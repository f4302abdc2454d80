"""Picture or sentence in, an orbit of views out: networks, samplers and the two systems, VideoMV and Hi3D."""
