# The Hugging Face `tokenizers` crate behind the C interface of rust/tokenizers_c.
find_program(CARGO cargo REQUIRED)
set(TOKENIZERS_LIBRARY ${CMAKE_BINARY_DIR}/rust/release/libtokenizers_c.a)
file(GLOB TOKENIZERS_SOURCES CONFIGURE_DEPENDS ${CMAKE_SOURCE_DIR}/rust/tokenizers_c/src/*.rs)
add_custom_command(
  OUTPUT ${TOKENIZERS_LIBRARY}
  COMMAND ${CARGO} build --release --locked --manifest-path ${CMAKE_SOURCE_DIR}/rust/tokenizers_c/Cargo.toml
          --target-dir ${CMAKE_BINARY_DIR}/rust
  DEPENDS ${TOKENIZERS_SOURCES} ${CMAKE_SOURCE_DIR}/rust/tokenizers_c/Cargo.toml ${CMAKE_SOURCE_DIR}/rust/tokenizers_c/Cargo.lock
  COMMENT "Building the tokenizers crate" USES_TERMINAL VERBATIM)
add_custom_target(tokenizers_c_build DEPENDS ${TOKENIZERS_LIBRARY})
add_library(tokenizers_c INTERFACE)
add_dependencies(tokenizers_c tokenizers_c_build)
target_include_directories(tokenizers_c INTERFACE ${CMAKE_SOURCE_DIR}/rust/tokenizers_c/include)
target_link_libraries(tokenizers_c INTERFACE ${TOKENIZERS_LIBRARY} dl m pthread)
