"""A trained network on the faces of photos, videos and cameras: `Recognizer`, its runtimes, detection, explanation."""
