# frozen_string_literal: true

require 'fluent/config/error'
require 'fluent/plugin/bridge/librdkafka'

module Fluent
  module Plugin
    module Bridge
      # Parameters of a Kafka client, under the names that fluent-plugin-kafka's users know, and the
      # librdkafka settings made of them.
      module ClientOptions
        def self.included(plugin)
          plugin.class_eval do
            desc 'Brokers to begin with, as in `kafka-0:9092,kafka-1:9092`.'
            config_param :brokers, :string, default: 'localhost:9092'
            desc 'How to reach them; by default from the parameters below.'
            config_param :security_protocol, :enum, list: %i[plaintext ssl sasl_plaintext sasl_ssl], default: nil
            desc "Files of authorities that the brokers' certificates come from, in PEM; turns TLS on."
            config_param :ssl_ca_cert, :array, value_type: :string, default: []
            desc "The client's certificate (file in PEM)."
            config_param :ssl_client_cert, :string, default: nil
            desc 'Its private key (file in PEM).'
            config_param :ssl_client_cert_key, :string, default: nil
            desc "The key's password."
            config_param :ssl_client_cert_key_password, :string, default: nil, secret: true
            desc "Check that the broker's certificate has the name that it was reached by."
            config_param :ssl_verify_hostname, :bool, default: true
            desc 'User, for SASL.'
            config_param :username, :string, default: nil
            desc "The user's password."
            config_param :password, :string, default: nil, secret: true
            desc 'Use SCRAM with this hash; without it, PLAIN.'
            config_param :scram_mechanism, :enum, list: %i[sha256 sha512], default: nil
            desc 'Any other SASL mechanism, as in GSSAPI or OAUTHBEARER; its settings go into rdkafka_options.'
            config_param :sasl_mechanism, :string, default: nil
            desc 'Whether a user and a password go over TLS only.'
            config_param :sasl_over_ssl, :bool, default: true
            desc 'Any setting of librdkafka (its CONFIGURATION.md); they win over all others.'
            config_param :rdkafka_options, :hash, default: {}
          end
        end

        # Hands settings to librdkafka.
        #
        # @param options [Hash{String => Object}] settings of librdkafka
        # @return [FFI::Pointer] a rd_kafka_conf_t, the caller's until rd_kafka_new takes it
        # @raise [Fluent::ConfigError] one is unknown or has a value that it cannot have
        def self.native(options)
          configuration = Librdkafka.rd_kafka_conf_new
          message = FFI::MemoryPointer.new(:char, 512)
          options.each do |name, value|
            next if Librdkafka.rd_kafka_conf_set(configuration, name.to_s, value.to_s, message, 512).zero?

            Librdkafka.rd_kafka_conf_destroy(configuration)
            raise Fluent::ConfigError, "Kafka client: #{name}: #{message.read_string}"
          end
          configuration
        end

        # Makes a client of the settings and gives it up: what does not go together, and files that cannot be read,
        # librdkafka finds only then.
        #
        # @param kind [Symbol] :producer or :consumer
        # @param options [Hash{String => Object}] settings of librdkafka
        # @raise [Fluent::ConfigError] no client can be made of them
        def self.check(kind, options)
          configuration = native(options.merge('log_level' => 0))
          message = FFI::MemoryPointer.new(:char, 512)
          client = Librdkafka.rd_kafka_new(%i[producer consumer].index(kind), configuration, message, 512)
          return Librdkafka.rd_kafka_destroy(client) unless client.null?

          Librdkafka.rd_kafka_conf_destroy(configuration)
          raise Fluent::ConfigError, "Kafka #{kind}: #{message.read_string}"
        end

        # @return [Hash{String => String}] librdkafka's settings made from the plugin's parameters
        # @raise [Fluent::ConfigError] parameters do not go together
        def client_options
          check_client_options
          {
            'bootstrap.servers' => brokers,
            'client.id' => 'fluent-plugin-bridge',
            'log.connection.close' => 'false', # idle connections are closed by brokers all the time
            'security.protocol' => protocol,
            **tls_options,
            **sasl_options,
            **rdkafka_options.to_h { |name, value| [name.to_s, value.to_s] }
          }
        end

        private

        def tls?
          !ssl_ca_cert.empty? || !ssl_client_cert.nil? || (sasl? && sasl_over_ssl)
        end

        def sasl?
          !username.nil? || !sasl_mechanism.nil?
        end

        def protocol
          return security_protocol.to_s if security_protocol

          "#{'sasl_' if sasl?}#{tls? ? 'ssl' : 'plaintext'}"
        end

        def tls_options
          options = {}
          # librdkafka reads one file or one folder, but any number of certificates from a text.
          options['ssl.ca.pem'] = ssl_ca_cert.map { |file| read_file('ssl_ca_cert', file) }.join("\n") unless ssl_ca_cert.empty?
          options['ssl.certificate.location'] = ssl_client_cert if ssl_client_cert
          options['ssl.key.location'] = ssl_client_cert_key if ssl_client_cert_key
          options['ssl.key.password'] = ssl_client_cert_key_password if ssl_client_cert_key_password
          options['ssl.endpoint.identification.algorithm'] = 'none' unless ssl_verify_hostname
          options
        end

        def sasl_options
          return {} unless sasl?

          options = { 'sasl.mechanism' => sasl_mechanism || mechanism }
          options['sasl.username'] = username if username
          options['sasl.password'] = password if password
          options
        end

        def mechanism
          { nil => 'PLAIN', sha256: 'SCRAM-SHA-256', sha512: 'SCRAM-SHA-512' }.fetch(scram_mechanism)
        end

        def read_file(parameter, file)
          File.read(file)
        rescue SystemCallError => e
          raise Fluent::ConfigError, "#{parameter}: #{file} cannot be read: #{e.message}"
        end

        def check_client_options
          raise Fluent::ConfigError, 'brokers is empty: name at least one, as in `kafka-0:9092`' if brokers.strip.empty?
          if ssl_client_cert.nil? != ssl_client_cert_key.nil?
            raise Fluent::ConfigError, 'ssl_client_cert and ssl_client_cert_key go together: set both, or none'
          end
          raise Fluent::ConfigError, 'username and password go together: set both, or none' if username.nil? != password.nil?
          return unless security_protocol

          encrypted = security_protocol.to_s.end_with?('ssl')
          raise Fluent::ConfigError, "security_protocol #{security_protocol} needs a username and a password, or sasl_mechanism" if
            security_protocol.to_s.start_with?('sasl') && !sasl?
          raise Fluent::ConfigError, "security_protocol #{security_protocol} is not encrypted, but ssl_ca_cert or ssl_client_cert is set" if
            !encrypted && (!ssl_ca_cert.empty? || ssl_client_cert)
        end
      end
    end
  end
end
