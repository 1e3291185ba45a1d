//! What a run must show.
