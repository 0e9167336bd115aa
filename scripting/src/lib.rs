//! The script engine: Lua 5.1 with Redis' sandbox and API, behind a host that runs the commands.
