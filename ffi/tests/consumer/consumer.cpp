#include <sandcell.hpp>

int main()
{
    return sandcell::Policy().run({"/bin/echo", "hello"}).out() == "hello\n" ? 0 : 1;
}
