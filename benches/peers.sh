#!/bin/sh
# Builds Valkey from Debian's source package, to be measured against: peers.sh DIR
#
# Needs root once, for the list of sources (sources only: no package is ever installed from it), dpkg-dev, make and a
# C compiler. Built with Valkey's own defaults (-O3, LTO, its bundled jemalloc) but without TLS. Prints the path of
# the server, for --peer valkey=PATH.
set -eu

dir=${1:?usage: peers.sh DIR}
list=/etc/apt/sources.list.d/valkey-src.sources
key=/usr/share/keyrings/debian-archive-keyring.gpg

if ! grep -rqs '^Types:.*deb-src' /etc/apt/sources.list.d || ! apt-cache showsrc valkey >/dev/null 2>&1; then
    printf 'Types: deb-src\nURIs: http://deb.debian.org/debian\nSuites: sid\nComponents: main\nSigned-By: %s\n' \
        "$key" >"$list"
    apt-get update
fi

mkdir -p "$dir"
cd "$dir"
apt-get source --download-only valkey >&2
# The newest one, should an older one lie here too.
dsc=$(ls -t valkey_*.dsc | head -n 1)
version=$(basename "$dsc" .dsc | sed 's/^valkey_//; s/-[^-]*$//')
[ -d "valkey-$version" ] || dpkg-source -x "$dsc" >&2
make -C "valkey-$version" -j "$(nproc)" BUILD_TLS=no >&2
echo "$PWD/valkey-$version/src/valkey-server"
