#pragma once

#include <concepts>
#include <functional>
#include <initializer_list>
#include <map>
#include <string>
#include <utility>
#include <vector>

#include "lockstep/state/state_dict.hpp"

#pragma GCC visibility push(default)

namespace lockstep {

/// Other names for what is in a state dict: a map from the name there to the name here, where
/// names that it lacks stay, or a function.
class Renaming {
 public:
  Renaming() = default;
  Renaming(std::map<std::string, std::string> names);  // NOLINT: made from all
  Renaming(std::initializer_list<std::pair<const std::string, std::string>> names)
      : Renaming(std::map<std::string, std::string>(names)) {}
  template <class F>
  requires(!std::same_as<F, Renaming> && std::is_invocable_r_v<std::string, F&, const std::string&>)
      Renaming(F rename)
      : rename_(std::move(rename)) {}  // NOLINT

  std::string operator()(const std::string& name) const { return rename_ ? rename_(name) : name; }
  explicit operator bool() const noexcept { return static_cast<bool>(rename_); }

 private:
  std::function<std::string(const std::string&)> rename_;
};

struct LoadOptions {
  /// StateError, which lists them, where names are missing or unexpected.
  bool strict = false;
  /// Loads only what has a name here that starts with it.
  std::string prefix = {};
  /// Applied to the names in the source first.
  Renaming rename = {};
  /// Converts numbers of another floating-point dtype, which are a DTypeError otherwise. StateError
  /// for one outside the range of the dtype here.
  bool convert_dtype = false;
};

/// What became of the names: of an optimizer those of its parameters, of others those of their entries.
/// Each name of the object is in one of the first three lists.
struct LoadReport {
  std::vector<std::string> loaded = {};  ///< took over the source's state
  std::vector<std::string> kept = {};    ///< left out by the prefix, or without state in the source
  std::vector<std::string> missing = {};     ///< unknown to the source; keep what they have
  std::vector<std::string> unexpected = {};  ///< only in the source
  /// Param groups whose set of parameters is no group of the source: keep their hyper-parameters.
  std::vector<std::string> kept_groups = {};
};

/// Something whose state can be saved by name and restored.
class Stateful {
 public:
  virtual ~Stateful() = default;

  /// The state by name. Tensors share the object's memory: clone() the dict to keep it.
  virtual StateDict state_dict() const = 0;

  /// What of a saved state this object can take over: where it has a TensorPart, whose numbers mean nothing,
  /// restore(source) needs no more than that part, and whole tensors elsewhere.
  virtual StateDict wanted() const { return state_dict(); }

  /// Throws what restore(source) would, and changes nothing.
  virtual void check_restore(const StateDict& source) const = 0;

  /// Makes the object's state exactly that of `source`, or throws and changes nothing.
  virtual void restore(const StateDict& source) = 0;

  /// Takes over what both know by name, or throws an Error of the kind that fits (mostly StateError,
  /// ShapeError or DTypeError) and changes nothing. Unless an object says otherwise, a name is that of an
  /// entry of its state dict, which is taken over whole.
  virtual LoadReport load_state_dict(const StateDict& source, const LoadOptions& options);
  LoadReport load_state_dict(const StateDict& source) { return load_state_dict(source, {}); }
  /// What load_state_dict would report or throw; changes nothing.
  virtual LoadReport check_load(const StateDict& source, const LoadOptions& options) const;
};

}  // namespace lockstep

#pragma GCC visibility pop
