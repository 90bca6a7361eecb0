# Sourced by scripts/image, scripts/bundle and scripts/channel: who may sign an update. Sourced after needs.sh.
# shellcheck shell=bash

# Where development keys live: on the machine that made them, never in a checkout.
# shellcheck disable=SC2154 # needs.sh says where
signing=$cache/signing

# need_signing_keys: development keys, made here where there are none: an authority with its list of revoked certificates,
# and a certificate that signs bundles and nothing else. `keyring.pem` is what an image trusts.
need_signing_keys() {
    [ ! -s "$signing/keyring.pem" ] || return 0
    need_packages openssl
    say "making development keys for updates in $signing"
    mkdir -p "$cache"
    local new
    new=$(mktemp --directory "$signing.XXXXXX")
    (umask 077 && make_signing_keys "$new") >&2
    # Two builds at once: whoever comes second uses the first one's.
    if ! mv --no-target-directory "$new" "$signing" 2>/dev/null; then rm -rf "$new"; fi
    [ -s "$signing/keyring.pem" ] || fail "no development keys in $signing"
}

# make_signing_keys FOLDER
make_signing_keys() {
    local folder=$1
    make_authority "$folder" "Refuge development"
    sign_certificate "$folder" development signer
    revoke_and_list "$folder"
}

# make_authority FOLDER NAME: a key and a certificate that signs others. From 2026 on: a box without a clock begins there.
make_authority() {
    local folder=$1
    mkdir -p "$folder"
    : >"$folder/index.txt"
    echo 01 >"$folder/serial"
    echo 01 >"$folder/crlnumber"
    cat >"$folder/openssl.cnf" <<CONFIGURATION
[ca]
default_ca = authority
[authority]
database = $folder/index.txt
new_certs_dir = $folder
serial = $folder/serial
crlnumber = $folder/crlnumber
default_md = sha256
policy = name
unique_subject = no
[name]
commonName = supplied
[req]
distinguished_name = name_of
prompt = no
[name_of]
commonName = $2
[authority_of]
basicConstraints = critical,CA:true
keyUsage = critical,keyCertSign,cRLSign
subjectKeyIdentifier = hash
[signer]
basicConstraints = critical,CA:false
keyUsage = critical,digitalSignature
extendedKeyUsage = critical,codeSigning
subjectKeyIdentifier = hash
authorityKeyIdentifier = keyid
[mailer]
basicConstraints = critical,CA:false
keyUsage = critical,digitalSignature
extendedKeyUsage = critical,emailProtection
subjectKeyIdentifier = hash
authorityKeyIdentifier = keyid
CONFIGURATION
    openssl genpkey -algorithm EC -pkeyopt ec_paramgen_curve:P-256 -out "$folder/authority.key" 2>/dev/null
    openssl req -new -config "$folder/openssl.cnf" -key "$folder/authority.key" -out "$folder/authority.csr"
    openssl ca -config "$folder/openssl.cnf" -batch -notext -selfsign -extensions authority_of -startdate 20260101000000Z -enddate 20360101000000Z \
        -keyfile "$folder/authority.key" -in "$folder/authority.csr" -out "$folder/authority.pem"
}

# sign_certificate FOLDER FILE KIND [ENDDATE]: a key FILE.key and its certificate FILE.pem, for a signer of bundles or another kind.
sign_certificate() {
    local folder=$1 file=$1/$2
    openssl genpkey -algorithm EC -pkeyopt ec_paramgen_curve:P-256 -out "$file.key" 2>/dev/null
    openssl req -new -config "$folder/openssl.cnf" -key "$file.key" -subj "/CN=$2" -out "$file.csr"
    openssl ca -config "$folder/openssl.cnf" -batch -notext -extensions "$3" -startdate 20260101000000Z -enddate "${4:-20360101000000Z}" \
        -cert "$folder/authority.pem" -keyfile "$folder/authority.key" -in "$file.csr" -out "$file.pem"
}

# revoke_and_list FOLDER [FILE…]: what an image trusts: the authority, and its list with those certificates revoked.
revoke_and_list() {
    local folder=$1 file
    for file in "${@:2}"; do
        openssl ca -config "$folder/openssl.cnf" -cert "$folder/authority.pem" -keyfile "$folder/authority.key" -revoke "$folder/$file.pem"
    done
    openssl ca -config "$folder/openssl.cnf" -gencrl -crl_lastupdate 20260101000000Z -crl_nextupdate 20360101000000Z \
        -cert "$folder/authority.pem" -keyfile "$folder/authority.key" -out "$folder/authority.crl"
    cat "$folder/authority.pem" "$folder/authority.crl" >"$folder/keyring.pem"
}

# The development key of channels (scripts/channel), as those above: made on the machine that needs it.
# shellcheck disable=SC2034 # for who sources this
signing_channel=$cache/signing-channel.key

# need_channel_key: makes it where there is none.
need_channel_key() {
    [ ! -s "$signing_channel" ] || return 0
    need_packages openssl
    say "making a development key for channels: $signing_channel"
    mkdir -p "$cache"
    local new
    new=$(mktemp "$signing_channel.XXXXXX")
    openssl genpkey -algorithm ed25519 -out "$new"
    # Two at once: whoever comes second uses the first one's.
    ln "$new" "$signing_channel" 2>/dev/null || true
    rm "$new"
    [ -s "$signing_channel" ] || fail "no development key of channels in $signing_channel"
}
