"""Pictures and meshes of the sandbox: real work on the picture that was sent, no model weights."""
