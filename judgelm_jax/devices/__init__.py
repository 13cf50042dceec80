"""The devices of a run: what they can do, their memory, the mesh and what lies where on it, the compilation cache, profiles."""
