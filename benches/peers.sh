#!/bin/sh
# Builds Valkey from Debian's source package, to be measured against: peers.sh DIR
#
# Needs Debian's apt, dpkg-dev, make, a C compiler and libssl-dev, but not root: apt works in DIR/apt, with one source line derived
# from the machine's own, so that a mirror in use stays in use and the machine's lists stay as they are. Built with
# Valkey's own defaults (-O3, LTO, its bundled jemalloc), and with TLS. Prints the path of the server, for
# --peer valkey=PATH.
set -eu

# The suite that has the version to be measured against.
suite=sid

mkdir -p "${1:?usage: peers.sh DIR}"
cd "$1"

# The archive that the machine's packages come from. Security updates have an archive of their own, without this suite.
archive() {
    apt-get indextargets --format '$(ORIGIN)|$(COMPONENT)|$(RELEASE)|$(REPO_URI)' 'Identifier: Packages' |
        sed -n '/^Debian|main|[^|]*-security|/d; s/^Debian|main|[^|]*|//p' | head -n 1
}
uri=$(archive)
if [ -z "$uri" ] && [ "$(id -u)" = 0 ]; then
    # A fresh image has no lists, and apt names only archives that it has a list of.
    apt-get -qq update >&2
    uri=$(archive)
fi
[ -n "$uri" ] || { echo "apt knows no Debian archive to get valkey from" >&2; exit 1; }

mkdir -p apt/lists/partial apt/cache/archives/partial
echo "deb-src $uri $suite main" >apt/sources.list
apt() {
    # Root would hand the download to a user who may not write here.
    apt-get -qq -oDir::Etc::SourceList="$PWD/apt/sources.list" -oDir::Etc::SourceParts=/dev/null \
        -oDir::State::Lists="$PWD/apt/lists" -oDir::Cache="$PWD/apt/cache" -oAPT::Sandbox::User=root "$@" >&2
}
apt update
apt source --download-only valkey

# The newest one, should an older one lie here too.
dsc=$(ls -t valkey_*.dsc | head -n 1)
version=$(basename "$dsc" .dsc | sed 's/^valkey_//; s/-[^-]*$//')
[ -d "valkey-$version" ] || dpkg-source -x "$dsc" >&2
make -C "valkey-$version" -j "$(nproc)" BUILD_TLS=yes >&2
echo "$PWD/valkey-$version/src/valkey-server"
