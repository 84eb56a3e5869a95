#!/bin/sh
# Makes an authority and one certificate per NATS server: deploy/certificates.sh <folder> <server name> ...
# Names, not addresses: clients check the certificate against the name they were given.
# Files: <folder>/ca.pem (for everybody), <folder>/ca.key (keep it off the servers), <folder>/<name>.pem and .key.
# Run again with more names to add servers; what is there stays. Servers live 2 years, the authority 10.
set -eu
if [ $# -lt 2 ]; then
  echo "usage: $0 <folder> <server name> ..." >&2
  exit 1
fi
command -v openssl >/dev/null || { echo 'openssl is not here: install the package openssl' >&2; exit 1; }
folder=$1
shift
umask 077
mkdir -p "$folder"

key() { openssl genpkey -quiet -algorithm EC -pkeyopt ec_paramgen_curve:P-256 -out "$1" 2>/dev/null ||
  openssl genpkey -algorithm EC -pkeyopt ec_paramgen_curve:P-256 -out "$1"; }

if [ ! -e "$folder/ca.pem" ]; then
  key "$folder/ca.key"
  openssl req -x509 -new -key "$folder/ca.key" -sha256 -days 3650 -subj '/CN=Muster authority' \
    -addext 'basicConstraints=critical,CA:TRUE,pathlen:0' -addext 'keyUsage=critical,keyCertSign,cRLSign' \
    -out "$folder/ca.pem"
  chmod 644 "$folder/ca.pem"
fi

for name; do
  [ ! -e "$folder/$name.pem" ] || continue
  key "$folder/$name.key"
  extensions=$folder/.$name.extensions
  # Servers of a cluster are clients of each other, hence both uses.
  printf '%s\n' "subjectAltName=DNS:$name" 'basicConstraints=critical,CA:FALSE' \
    'keyUsage=critical,digitalSignature' 'extendedKeyUsage=serverAuth,clientAuth' >"$extensions"
  openssl req -new -key "$folder/$name.key" -subj "/CN=$name" |
    openssl x509 -req -CA "$folder/ca.pem" -CAkey "$folder/ca.key" -CAcreateserial -sha256 -days 730 \
      -extfile "$extensions" -out "$folder/$name.pem" 2>/dev/null
  rm "$extensions"
  echo "$folder/$name.pem"
done
