#include "bindings/handles.hpp"

#include <cstdint>
#include <mutex>
#include <unordered_map>
#include <utility>

namespace lockstep::bindings {
namespace {

// The one thing that all objects of a process share: which of them there are. Never destroyed,
// since a host may free handles while it ends.
struct Table {
  std::mutex mutex;
  std::unordered_map<std::uintptr_t, std::shared_ptr<Object>> objects;
  std::uintptr_t last = 0;
};

Table& table() {
  static Table* const only = new Table;
  return *only;
}

}  // namespace

void* add_handle(std::shared_ptr<Object> object) {
  const std::lock_guard lock(table().mutex);
  const std::uintptr_t number = table().last + 1;
  table().objects.emplace(number, std::move(object));
  table().last = number;
  return reinterpret_cast<void*>(number);
}

std::shared_ptr<Object> find_handle(const void* handle, std::string_view expected) {
  const auto what = [&] { return "a handle of a " + std::string(expected); };
  if (handle == nullptr) throw HandleError("expected " + what() + ", found NULL");
  const std::lock_guard lock(table().mutex);
  const auto found = table().objects.find(reinterpret_cast<std::uintptr_t>(handle));
  if (found == table().objects.end()) {
    throw HandleError("expected " + what() + ", found one that was freed, or never was one");
  }
  return found->second;
}

void free_handle(void* handle) {
  if (handle == nullptr) return;
  // It ends after the lock, since other handles may be freed in the course of that.
  const std::shared_ptr<Object> object = find_handle(handle, "lockstep object");
  const std::lock_guard lock(table().mutex);
  table().objects.erase(reinterpret_cast<std::uintptr_t>(handle));
}

}  // namespace lockstep::bindings
