# frozen_string_literal: true

require 'fluent/config/error'
require 'fluent/plugin/bridge/sidecar'

module Fluent
  module Plugin
    module Bridge
      # Parameters of the connection to the sidecar, for filter and output alike.
      module SidecarParameters
        SUN_PATH = 107 # bytes that the path of a Unix socket may have (unix(7))
        private_constant :SUN_PATH

        def self.included(plugin)
          plugin.class_eval do
            desc 'Where the sidecar is: `unix:/path/of/socket` (its rpc.socket) or `host:port` (its rpc.host and rpc.port).'
            config_param :address, :string
            desc 'How long a batch may take, waiting for a sidecar that is not there included.'
            config_param :timeout, :time, default: 60
            desc 'tcp or tls; tls by itself if tls_cert_path is set. Not for Unix sockets.'
            config_param :transport, :enum, list: %i[tcp tls], default: :tcp
            desc "File of the authorities that the sidecar's certificate comes from, in PEM; by default those of gRPC."
            config_param :tls_cert_path, :string, default: nil
            desc "The plugin's own certificate (file in PEM), if the sidecar asks for one."
            config_param :tls_client_cert_path, :string, default: nil
            desc 'Its private key (file in PEM).'
            config_param :tls_client_private_key_path, :string, default: nil
            desc "The name in the sidecar's certificate, if it is not the host of the address."
            config_param :tls_server_name, :string, default: nil
          end
        end

        private

        # @return [Sidecar]
        # @raise [Fluent::ConfigError] a parameter is wrong, or parameters do not go together
        def sidecar_from_parameters
          check_address
          raise Fluent::ConfigError, "timeout is #{timeout} s: it must be more than 0" unless timeout.positive?

          Sidecar.new(address, tls: tls, server_name: tls_server_name)
        end

        def check_address
          case address
          when %r{\Aunix:(?://)?(?<path>/.+)\z}
            size = Regexp.last_match(:path).bytesize
            raise Fluent::ConfigError, "address: the path has #{size} bytes, a Unix socket's may have #{SUN_PATH}" if size > SUN_PATH
            raise Fluent::ConfigError, "address: #{address} is a Unix socket, which has no TLS: remove transport and tls_*" if tls?
          when /\A(\[[0-9a-fA-F:.]+\]|[^\[\]:\s]+):\d+\z/
            nil
          else
            raise Fluent::ConfigError, "address: #{address.inspect} is neither `unix:/path/of/socket` nor `host:port`"
          end
        end

        def tls?
          transport == :tls || [tls_cert_path, tls_client_cert_path, tls_client_private_key_path, tls_server_name].any?
        end

        def tls
          return unless tls?
          if tls_client_cert_path.nil? != tls_client_private_key_path.nil?
            raise Fluent::ConfigError, 'tls_client_cert_path and tls_client_private_key_path go together: set both, or none'
          end

          %i[tls_cert_path tls_client_private_key_path tls_client_cert_path].map { |parameter| pem(parameter) }
        end

        def pem(parameter)
          path = public_send(parameter)
          path && File.read(path)
        rescue SystemCallError => e
          raise Fluent::ConfigError, "#{parameter}: #{path} cannot be read: #{e.message}"
        end
      end
    end
  end
end
