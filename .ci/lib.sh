# Shared by the scripts of this folder: packages, and Debian's own Rust for targets that rustup's toolchain lacks.

# Debian's compiler and cargo, by path: rustup's come first in PATH and have no other target.
DEBIAN_RUSTC=/usr/bin/rustc
DEBIAN_CARGO=/usr/bin/cargo

# Exit status of what cannot run on this machine.
SKIPPED=75

skip() {
    echo "SKIPPED: $*"
    exit $SKIPPED
}

# Prints a command and runs it.
run() {
    echo "\$ $*"
    "$@"
}

as_root() {
    if [ "$(id -u)" -eq 0 ]; then "$@"; else sudo -E "$@"; fi
}

# Installs those of the named Debian packages that are missing. A machine that cannot, skips.
install_packages() {
    local missing=() package
    for package in "$@"; do
        dpkg-query -W -f='${Status}' "$package" 2>/dev/null | grep -q 'install ok installed' || missing+=("$package")
    done
    [ ${#missing[@]} -eq 0 ] && return 0
    echo "installing: ${missing[*]}"
    export DEBIAN_FRONTEND=noninteractive
    { as_root apt-get update -qq && as_root apt-get install -qq -y --no-install-recommends "${missing[@]}" >/dev/null; } ||
        skip "cannot install ${missing[*]}"
}

# Debian's Rust; its cargo is run by path with `RUSTC` set, and with the target folder of its own below `target`.
install_debian_rust() {
    install_packages rustc-web cargo-web rust-web-src libstd-rust-web-dev
    export RUSTC=$DEBIAN_RUSTC CARGO_TARGET_DIR="${CARGO_TARGET_DIR:-target}/debian"
    "$DEBIAN_RUSTC" --version
}
