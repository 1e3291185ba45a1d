//! Its tests end in all the ways that nextest tells apart.
