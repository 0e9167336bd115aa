//! Directives: one declarative table behind redis.conf, CONFIG GET/SET/REWRITE and the command line.
