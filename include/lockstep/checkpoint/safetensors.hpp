#pragma once

#include <map>
#include <string>

#include "lockstep/state/stateful.hpp"

#pragma GCC visibility push(default)

// Files in the safetensors format, to exchange tensors with other programs.
// docs/checkpoint_format.md says which tensors and names go into them. None of it is collective.
namespace lockstep::checkpoint {

struct SafetensorsFile {
  StateDict tensors;                            ///< by their full names, dots included
  std::map<std::string, std::string> metadata;  ///< texts by name
};

/// Reads a file into memory of its own, in proportion to the file. F32, F64, I64 and U8 are read to
/// the bit; F16 and BF16 as f32, BOOL as u8, and I8, I16, I32, U16 and U32 as i64, which all
/// keep their values; another dtype is refused. CheckpointError, with the path, the tensor, what was
/// expected and what was found, for whatever is not as the format has it: names that come twice,
/// tensors that overlap, bytes of no tensor, fields that a tensor does not have. The format has no
/// checksums: elements that have changed are not noticed.
SafetensorsFile read_safetensors(const std::string& path);

/// Writes a state with the guarantees of write_file(). Entries of a dict in it are called
/// "dict.entry", items of a list "list.0" and so on; a bool, an integer and a double become a tensor
/// without axes of BOOL, I64 or F64, and a string goes to the metadata. NameError where two have the
/// same name, or one is no UTF-8; StateError for an undefined tensor; CheckpointError where the file
/// cannot be written.
void write_safetensors(const std::string& path, const StateDict& state,
                       const std::map<std::string, std::string>& metadata = {});

/// Writes the state of a model under its own names, which other programs know, and that of its
/// optimizer, if there is one, as `state.<parameter>.<slot>` and `param_groups.<group>.<field>`. Where
/// the model has more than tensors, the metadata `lockstep` tells what, for `lockstep convert`.
/// StateError for an optimizer that has more state than that, as LBFGS; NameError for a model with
/// such names of its own; else as write_safetensors().
void export_safetensors(const std::string& path, const Stateful& model,
                        const Stateful* optimizer = nullptr);

/// Restores a model, and an optimizer unless that is null, to the bits that were exported. Without
/// one, an optimizer's state in the file is ignored. CheckpointError where the file cannot be used or
/// does not fit; nothing has changed then.
void import_safetensors(const std::string& path, Stateful& model, Stateful* optimizer = nullptr);

}  // namespace lockstep::checkpoint

#pragma GCC visibility pop
