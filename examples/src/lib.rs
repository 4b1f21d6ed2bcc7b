//! What a user copies: VMM recipes and a backend in 50 lines
