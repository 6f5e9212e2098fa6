# An imported target `torch` for a libtorch that is already unpacked.
# The wheel's own TorchConfig.cmake asks for a CUDA toolkit, which a program that only links does not need.
find_library(TORCH_CPU_LIBRARY torch_cpu
  HINTS ${GRAFT_DEPS}/torch/lib PATH_SUFFIXES lib lib64 REQUIRED)
get_filename_component(TORCH_LIBRARY_DIR ${TORCH_CPU_LIBRARY} DIRECTORY)
get_filename_component(TORCH_ROOT ${TORCH_LIBRARY_DIR} DIRECTORY)
set(TORCH_INCLUDE_DIRS ${TORCH_ROOT}/include ${TORCH_ROOT}/include/torch/csrc/api/include)

add_library(torch INTERFACE)
# -idirafter: the wheel carries fmt 12 in its include folder; it must not shadow the system's.
foreach(dir ${TORCH_INCLUDE_DIRS})
  target_compile_options(torch INTERFACE "SHELL:-idirafter ${dir}")
endforeach()
target_link_libraries(torch INTERFACE ${TORCH_LIBRARY_DIR}/libtorch_cpu.so ${TORCH_LIBRARY_DIR}/libc10.so)
target_link_options(torch INTERFACE "LINKER:-rpath,${TORCH_LIBRARY_DIR}" "LINKER:-rpath-link,${TORCH_ROOT}/../nvidia/cu13/lib")
message(STATUS "libtorch: ${TORCH_ROOT}")
