# frozen_string_literal: true

require 'socket'
require 'tmpdir'

# A real sidecar, run by the Python that BRIDGE_PYTHON names, on a Unix socket in a folder of its own.
class SidecarProcess
  FILTERS = File.expand_path('filters', __dir__)
  PROJECT = File.expand_path('../../..', __dir__)
  PATIENCE = 60 # seconds until it must run

  # One for all tests that need no other, ended with the process.
  def self.shared
    @shared ||= new.tap do |sidecar|
      sidecar.start
      Test::Unit.at_exit { sidecar.remove }
    end
  end

  def initialize(**settings)
    @folder = Dir.mktmpdir('fluent-plugin-bridge')
    @settings = settings
  end

  def socket
    File.join(@folder, 'sidecar.sock')
  end

  def address
    "unix:#{socket}"
  end

  def start
    @pid = spawn(environment, ENV.fetch('BRIDGE_PYTHON', 'python3'), '-m', 'bridge', 'run', in: File::NULL, %i[out err] => log)
    deadline = Process.clock_gettime(Process::CLOCK_MONOTONIC) + PATIENCE
    until File.read(log).include?('"event":"ready"')
      raise "the sidecar does not run: #{File.read(log)}" if Process.wait(@pid, Process::WNOHANG)
      raise "the sidecar is not ready: #{File.read(log)}" if Process.clock_gettime(Process::CLOCK_MONOTONIC) > deadline

      sleep 0.05
    end
  end

  def kill
    return unless @pid

    Process.kill(:KILL, @pid)
    Process.wait(@pid)
    @pid = nil
    File.write(log, '')
  end

  def remove
    kill
    FileUtils.rm_rf(@folder)
  end

  private

  def log
    File.join(@folder, 'log')
  end

  def environment
    settings = {
      'RPC__SOCKET' => socket, 'LISTEN__ENABLED' => 'false', 'FILTERS__PATH' => FILTERS, 'ADMIN__PORT' => '0',
      'WORKERS__COUNT' => '1', 'LOG__FORMAT' => 'json',
      **@settings.to_h { |name, value| [name.to_s.upcase, value.to_s] }
    }
    { 'PYTHONPATH' => PROJECT, **settings.transform_keys { |name| "FLUENT_BRIDGE_#{name}" } }
  end
end
