# shellcheck shell=bash
# What the shell launchers share: options written --name=value, --help, --dry_run, and mistakes that exit with status 2.
#
# A script sources this file, gives its options their defaults as variables of the same names, and calls
#   parse "name other" "a_switch" "$@"
# Afterwards the variables hold the values (a switch holds 'yes' or nothing), 'words' what stood before '--' and was no
# option, and 'command' what stood behind '--'.

dry_run=
words=()
command=()

fail() {
  echo "error: $*" >&2
  exit 2
}

# The comment at the top of the script is its help.
show_help() {
  sed -n '2,/^[^#]/s/^# \{0,1\}//p' "$0"
}

parse() {
  local known=" $1 " switches=" $2 dry_run " argument key
  shift 2
  while (($#)); do
    argument=$1
    shift
    key=${argument#--}
    key=${key%%=*}
    if [[ $argument == -- ]]; then
      command=("$@")
      return
    elif [[ $argument == --help || $argument == -h ]]; then
      show_help
      exit 0
    elif [[ $argument == --*=* && $known == *" $key "* ]]; then
      printf -v "$key" '%s' "${argument#*=}"
    elif [[ $argument == --* && $argument != *=* && $switches == *" $key "* ]]; then
      printf -v "$key" yes
    elif [[ $argument == -* ]]; then
      fail "unknown option '$argument'. With a value, written --name=value, there are:${known% }. Without:${switches% }. \
See --help."
    else
      words+=("$argument")
    fi
  done
}

# require NAME...: these options must have a value.
require() {
  local option
  for option in "$@"; do
    [[ -n ${!option} ]] || fail "--$option=... is missing; see --help."
  done
}

# whole NAME...: these options must be whole numbers above 0.
whole() {
  local option
  for option in "$@"; do
    [[ ${!option} =~ ^[1-9][0-9]*$ ]] || fail "--$option=${!option}: give a whole number above 0."
  done
}

# require_command: there must be a command behind '--', and nothing that is no option before it.
require_command() {
  ((${#words[@]} == 0)) || fail "unexpected argument '${words[0]}': the command stands behind '--'."
  ((${#command[@]})) || fail "no command: write it behind '--', as in -- python -m fer_jax.train --config=... --workdir=..."
}

# need PROGRAM WHERE: the program must be installed; a dry run goes without it.
need() {
  [[ -n $dry_run ]] || command -v "$1" > /dev/null || fail "'$1' is not installed: $2"
}

# quoted WORD...: the words as one line that can be pasted into a shell.
quoted() {
  local word line=
  for word in "$@"; do
    [[ $word =~ ^[A-Za-z0-9_@%+=:,./-]+$ ]] || word="'${word//\'/\'\\\'\'}'"
    line+="$word "
  done
  printf '%s\n' "${line% }"
}

# run WORD...: runs the command, or prints it in a dry run.
run() {
  if [[ -n $dry_run ]]; then
    quoted "$@"
  else
    "$@"
  fi
}
