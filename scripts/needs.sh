# Sourced by the scripts of this folder: where builds are kept, and how what is missing gets installed.
# shellcheck shell=bash

root=$(cd "$(dirname "${BASH_SOURCE[0]}")/.." && pwd)
rust_at_least=$(sed -n 's/^rust-version = "\(.*\)"/\1/p' "$root/Cargo.toml")
# Builds that outlive a checkout: ARM targets, the benchmark's peers, tools built from crates.
cache=${REFUGE_CACHE:-${XDG_CACHE_HOME:-$HOME/.cache}/refuge}

say() { printf '\033[1m==> %s\033[0m\n' "$*" >&2; }
fail() { printf 'error: %s\n' "$*" >&2; exit 1; }
have() { command -v "$1" >/dev/null 2>&1; }

# The comment block at the head of a script is its help.
help_of() { sed -n '2,/^[^#]/{/^#/s/^# \{0,1\}//p}' "$1"; }

as_root() {
    if [ "$(id -u)" = 0 ]; then "$@"
    elif have sudo; then sudo "$@"
    else fail "root is needed for: $*"
    fi
}

# The version of the sources.
version_of_sources() { sed -n '/^\[package\]/,/^\[/s/^version = "\(.*\)"/\1/p' "$root/Cargo.toml"; }

# need_packages NAME…: Debian packages, installed only when one is missing.
need_packages() {
    local name missing=()
    have dpkg-query || fail "this is neither Debian nor Ubuntu: install the counterparts of $* by hand"
    for name; do
        dpkg-query -W -f '${db:Status-Status}' "$name" 2>/dev/null | grep -qx installed || missing+=("$name")
    done
    [ ${#missing[@]} -gt 0 ] || return 0
    say "installing ${missing[*]} (apt)"
    as_root env DEBIAN_FRONTEND=noninteractive apt-get update -q >&2
    as_root env DEBIAN_FRONTEND=noninteractive apt-get install -q -y --no-install-recommends "${missing[@]}" >&2
}

# rust_is_enough RUSTC: whether this compiler is there and recent enough.
rust_is_enough() {
    local version
    version=$("$1" --version 2>/dev/null | sed -n 's/^rustc \([0-9.]*\).*/\1/p') || return 1
    [ -n "$version" ] && printf '%s\n%s\n' "$rust_at_least" "$version" | sort --version-sort --check=quiet
}

# need_rust [COMPONENT…]: a stable Rust of at least Cargo.toml's rust-version, with rustfmt and clippy when named.
# Takes what is there before it downloads anything.
need_rust() {
    local component
    have cc || need_packages build-essential
    [ -d "$HOME/.cargo/bin" ] && PATH=$PATH:$HOME/.cargo/bin
    if ! rust_is_enough rustc; then
        if ! have rustup && apt-cache show rustup >/dev/null 2>&1; then need_packages rustup; fi
        if have rustup; then
            say "installing stable Rust (rustup)"
            rustup toolchain install stable --profile minimal --component rustfmt --component clippy >&2
            export RUSTUP_TOOLCHAIN=stable
        else
            need_packages rustc-web cargo-web
        fi
        rust_is_enough rustc || fail "Rust $rust_at_least or later is needed; see https://rustup.rs"
    fi
    for component; do
        have "cargo-$component" && cargo "$component" --version >/dev/null 2>&1 && continue
        if have rustup; then rustup component add "${component/fmt/rustfmt}" >&2
        elif [ "$component" = fmt ]; then need_packages rustfmt-web
        else need_packages "rust-web-$component"
        fi
    done
}

# need_auditable: cargo-auditable, which writes into a binary of what it was made; of one version, so that two machines make the
# same bytes.
need_auditable() {
    local version=0.7.7
    PATH=$cache/tools/bin:$PATH
    grep -qs "^\"cargo-auditable $version " "$cache/tools/.crates.toml" && return
    say "installing cargo-auditable $version"
    mkdir -p "$cache/tools"
    env --unset=RUSTFLAGS CARGO_TARGET_DIR="$cache/tools-build" cargo install cargo-auditable --version "$version" --locked --root "$cache/tools" --force >&2
}

# need_zigbuild: cargo-zigbuild and Zig, which brings musl and a C compiler for every target.
need_zigbuild() {
    local python
    PATH=$PATH:$HOME/.local/bin
    if have cargo-zigbuild && have zig; then return; fi
    python=$cache/zig/bin/python3
    if have cargo-zigbuild && python3 -c 'import ziglang' 2>/dev/null; then
        python=python3
    else
        PATH=$PATH:$cache/zig/bin
        if ! [ -x "$cache/zig/bin/cargo-zigbuild" ]; then
            need_packages python3-venv
            say "installing cargo-zigbuild and ziglang (pip)"
            python3 -m venv "$cache/zig" >&2
            "$cache/zig/bin/pip" install --quiet cargo-zigbuild ziglang >&2
        fi
    fi
    # Named, because the builds put another Python first in PATH.
    CARGO_ZIGBUILD_ZIG_PATH=$("$python" -c 'import os, ziglang; print(os.path.join(os.path.dirname(ziglang.__file__), "zig"))')
    export CARGO_ZIGBUILD_ZIG_PATH
}

# use_native_target: chooses where this checkout is built. A checkout that was built before goes on in its own folder;
# a fresh one borrows the cache, if there is one and no other build holds it.
use_native_target() {
    if [ -z "${CARGO_TARGET_DIR:-}" ]; then
        CARGO_TARGET_DIR=$root/target
        if [ ! -e "$root/target/CACHEDIR.TAG" ] && [ -d "$cache" ] && [ -w "$cache" ]; then
            exec 8>"$cache/native.lock"
            if flock --nonblock 8; then CARGO_TARGET_DIR=$cache/native; fi
        fi
    fi
    export CARGO_TARGET_DIR
}
