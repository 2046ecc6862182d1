#pragma once

#include <algorithm>
#include <cmath>
#include <cstring>

#include "docs/data_parallel.hpp"
