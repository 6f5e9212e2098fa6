#include <gtest/gtest.h>

#include <set>

#include "graft/models/architectures.h"
#include "graft/select/catalogue.h"

namespace graft {
namespace {

TEST(RunningArchitectures, TheCatalogueKnowsThoseOfTheTable) {
  std::set<std::string> table;
  for (const auto& row : models::architectures()) table.insert(row.model_type);
  const auto known = select::running_architectures();
  EXPECT_EQ(std::set<std::string>(known.begin(), known.end()), table)
      << "cmake/Catalogue.cmake reads `model_type = \"...\"` from graft/models/*.cpp: write a new one so, on one line";
}

}  // namespace
}  // namespace graft
